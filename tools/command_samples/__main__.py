"""`make command-samples`: plays every sample of docs/commands.md again, on servers of its own.

One relay, RabbitMQ, and a few messages in trouble, with the ids that the page's commands name.
"""

import shlex
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

import psycopg
from kombu import Connection, Queue

from bench.programs.relay import Relay
from command_samples.page import written
from command_samples.shell import in_a_pipe, on_terminal
from outbox_migrations import upgrade
from servers import Postgres, RabbitMQ, ServerMissing
from servers.ports import free_port

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/commands.md"
DEADLINE: Final = 60.0
#: As wide as a line of the page.
COLUMNS: Final = 120
#: Whoever makes the page is nobody to its readers; a name as long leaves columns where they are.
SOMEBODY: Final = "ana@laptop"
LOGIN: Final = "a" * max(1, len(SOMEBODY) - len(f"@{socket.gethostname()}"))
MYSELF: Final = f"{LOGIN}@{socket.gethostname()}"

CHARGES: Final = (
    "bc6d3e9f-6928-495c-b2c0-16890435a410",
    "a1e7bec0-16d1-48b1-b2f1-56f6da2d647a",
)
BILLS: Final = ("965ab0aa-4194-4d92-ad7d-9811321b60c7", "759ab829-cb20-4238-8bd5-1f40f41f42bc")
REPORT: Final = "8114b133-9d95-4d48-890e-047e5922e18a"
REMINDER: Final = "3ab6f3f0-4085-4942-8031-a4aaa5c567a0"
MAIL: Final = "7382cf1d-5f32-4af3-bfe3-cf49268ae5a0"

INSERT: Final = """
INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, properties, body,
                            content_type, content_encoding, available_at)
VALUES (%(id)s, %(task)s::text, %(exchange)s, %(key)s,
        json_build_object('lang', 'py', 'task', %(task)s::text, 'argsrepr', '(42,)',
                          'kwargsrepr', '{}'),
        '{"delivery_mode": 2}', '[[42], {}, {"callbacks": null}]', 'application/json', 'utf-8',
        now() + %(after)s::interval)
"""
NOTE: Final = """
SELECT inbox.note_receipts('a@worker-1', ARRAY[%s], ARRAY[%s], '{succeeded}', '{NULL}', '{0}',
                           '{NULL}', '{0}')
"""


class Scene:
    """A database and a broker, and what was typed there so far."""

    def __init__(self, folder: Path, database_url: str, broker_url: str) -> None:
        self.folder = folder
        self.admin = psycopg.connect(database_url, autocommit=True)
        self.environment = {
            "OUTBOX_DATABASE_URL": database_url,
            "OUTBOX_BROKER_URL": broker_url,
            "OUTBOX_MANAGEMENT_URL": "http://127.0.0.1:1",
            "LOGNAME": LOGIN,
        }
        self.played: defaultdict[str, list[str]] = defaultdict(list)

    def type(self, *lines: str, piped: bool = False, **environment: str) -> None:
        """Run each, and keep what it shows."""
        told = {**self.environment, **environment}
        for line in lines:
            program, *arguments = shlex.split(line)
            argv = [str(Path(sys.executable).with_name(program)), *arguments]
            shown = in_a_pipe(argv, told) if piped else on_terminal(argv, COLUMNS, told)
            self.played[line].append(_for_readers(shown))

    def send(self, id: str, task: str, key: str, *, exchange: str = "", after: str = "0") -> None:
        """A row, as a producer writes it."""
        values = {"id": id, "task": task, "exchange": exchange, "key": key, "after": after}
        self.admin.execute(INSERT, values)

    def wait(self, query: str) -> None:
        """Until this is true in the database."""
        until(lambda: bool(self.admin.execute(query.encode()).fetchall()[0][0]), query)

    @contextmanager
    def relay(self, **environment: str) -> Iterator[None]:
        """One that runs meanwhile."""
        relay = Relay(self.folder, **{**self.environment, **environment})
        try:
            yield
        finally:
            relay.kill()
        self.wait(
            "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name ~ '^outbox-relay'"
        )


def _for_readers(shown: str) -> str:
    """Without blanks at the ends of lines, and without the name of this machine."""
    aligned = shown.replace(MYSELF, SOMEBODY.ljust(len(MYSELF)))
    return "".join(f"{line.rstrip()}\n" for line in aligned.rstrip("\n").split("\n"))


def until(done: Callable[[], bool], what: str) -> None:
    """Wait for it, not for ever."""
    end = time.monotonic() + DEADLINE
    while not done():
        if time.monotonic() > end:
            raise SystemExit(f"waited {DEADLINE:g} s in vain: {what}")
        time.sleep(0.1)


@contextmanager
def consuming(broker_url: str) -> Iterator[None]:
    """Somebody who takes what is in two queues, of which one drops its oldest messages."""
    queues = [Queue("celery"), Queue("reports", queue_arguments={"x-max-length": 1000})]
    ended = threading.Event()
    with Connection(broker_url) as connection:

        def drain() -> None:
            while not ended.is_set():
                try:
                    connection.drain_events(timeout=0.2)
                except TimeoutError:
                    continue

        with connection.Consumer(queues, callbacks=[lambda _, message: message.ack()]):
            thread = threading.Thread(target=drain)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()


def not_ready(scene: Scene) -> None:
    """A relay that has no broker."""
    address = f"127.0.0.1:{free_port()}"

    def says_so() -> bool:
        try:
            with urlopen(f"http://{address}/readyz", timeout=5):
                return False
        except HTTPError as error:
            return b"database" not in error.read()
        except OSError:
            return False

    alone = {"OUTBOX_HTTP_ADDRESS": address, "OUTBOX_BROKER_URL": "amqp://127.0.0.1:1"}
    relay = Relay(scene.folder, **{**scene.environment, **alone})
    try:
        until(says_so, "a relay without a broker")
        scene.type("outbox-relay health", OUTBOX_HTTP_ADDRESS=address)
    finally:
        relay.kill()


def look(scene: Scene) -> None:
    """What is typed to see how it stands."""
    scene.type("outbox-relay status", "outbox-relay status --json")
    scene.type("outbox-relay doctor", piped=True)
    away = "127.0.0.1:1"
    scene.type(
        "outbox-relay doctor",
        piped=True,
        OUTBOX_DATABASE_URL=f"postgresql://{away}/shop",
        OUTBOX_BROKER_URL=f"amqp://{away}",
    )
    scene.type(
        "outbox-relay pending",
        "outbox-relay scheduled",
        "outbox-relay dead",
        "outbox-relay sent --limit 3",
        "outbox-relay dead --limit 1 --json",
        f"outbox-relay show {CHARGES[0]}",
    )


def act(scene: Scene) -> None:
    """What is typed to change something."""
    scene.type('outbox-relay pause --queue mail --reason "the provider is down"')
    for number in range(12):
        scene.send(f"{number:08}-8c27-4b4f-a1e9-e9769adad283", "shop.tasks.mail", "mail")
    scene.wait("SELECT coalesce(sum(messages), 0) = 12 FROM outbox.paused")
    scene.type("outbox-relay routes", "outbox-relay resume --queue mail")
    scene.type(
        "outbox-relay rate --queue mail --per-second 5 --burst 20",
        "outbox-relay rate --queue mail --off",
        f"outbox-relay retry {CHARGES[1]} nobody",
        "outbox-relay retry --task shop.tasks.charge",
        f'outbox-relay reschedule {REMINDER} --at 2030-01-31T08:00:00Z --why "the bank is closed"',
        f"outbox-relay discard {REMINDER} --yes",
    )
    scene.type("outbox-relay discard --all", piped=True)


def play(scene: Scene) -> None:
    """From the first message in trouble to the last command of the page."""
    for charge in CHARGES:
        scene.send(charge, "shop.tasks.charge", "charge", exchange="payments")
    with scene.relay(OUTBOX_MAX_ATTEMPTS="3"):
        scene.wait("SELECT dead = 2 FROM outbox.stats")
    with consuming(scene.environment["OUTBOX_BROKER_URL"]):
        for bill in BILLS:
            scene.send(bill, "shop.bill", "celery")
        scene.send(REPORT, "shop.tasks.report", "reports")
        scene.send(REMINDER, "shop.tasks.remind", "celery", after="2 hours")
        scene.send(MAIL, "shop.tasks.mail", "mail")
        with scene.relay():
            scene.wait("SELECT attempts = 4 FROM outbox.pending WHERE task = 'shop.tasks.mail'")
            look(scene)
            act(scene)
            not_ready(scene)
        scene.admin.execute(
            "INSERT INTO inbox.watched VALUES ('shop.bill', now() - interval '1 day'),"
            " ('shop.tasks.report', now() - interval '1 day')"
        )
        scene.admin.execute(NOTE, (BILLS[1], "shop.bill"))
        scene.admin.execute(NOTE, (REPORT, "shop.tasks.report"))
        scene.type("outbox-relay doctor", piped=True)
    scene.type(
        "outbox-relay audit --older-than 1s",
        "outbox-relay replay --since 1h --task shop.bill --yes",
        "outbox-relay purge --older-than 36h --yes",
    )


def main() -> int:
    """Play it, and write the page."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="samples-")))
        try:
            postgres = Postgres(folder / "postgres")
            stack.callback(postgres.discard)
            broker = RabbitMQ(folder / "rabbitmq")
            stack.callback(broker.discard)
        except ServerMissing as missing:
            print(missing, file=sys.stderr)
            return 1
        url = postgres.start().create_database("shop")
        broker.start()
        upgrade(url)
        scene = Scene(folder, url, broker.url(broker.create_vhost("shop")))
        stack.callback(scene.admin.close)
        play(scene)
    PAGE.write_text(written(PAGE.read_text(), scene.played))
    return 0


if __name__ == "__main__":
    sys.exit(main())
