"""No payload and no password shows where it need not: logs, metrics, reasons, processes, servers.

Each value carries a canary; then everything others can read is searched for it.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from outbox_relay.broker.amqp.encode import Encoder
from outbox_relay.broker.amqp.settings import RESERVED
from outbox_relay.broker.entities import described
from outbox_relay.broker.redis.envelope import envelope
from outbox_relay.broker.registry import publisher_factory
from outbox_relay.configuration import from_environment
from outbox_relay.errors import BrokerLost, SettingsError, StoreLost, Unpublishable
from outbox_relay.postgres.open import open_store
from outbox_relay.settings import Settings
from servers import Postgres
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until
from tests.relay.messages import a_message

CANARY = "canary-relay-7c1d"  # not the producer's: both read the log of one server
QUEUE = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'


def tagged(kind: str, value: object) -> str:
    """Headers holding one of kombu's tagged values."""
    return json.dumps({"x": {"__type__": kind, "__value__": value}})


#: Values that something will be said about.
BAD: dict[str, dict[str, Any]] = {
    "a moment": {"headers": tagged("datetime", CANARY)},
    "a day": {"headers": tagged("date", CANARY)},
    "a time": {"headers": tagged("time", CANARY)},
    "a decimal": {"headers": tagged("decimal", CANARY)},
    "bytes": {"headers": tagged("bytes", {CANARY: 1})},
    "an unknown tag": {"headers": tagged(CANARY, CANARY)},
    "a surrogate": {"headers": f'{{"x": "{CANARY}\\ud800"}}'},
    "no object": {"headers": f'"{CANARY}"'},
    "a priority": {"properties": json.dumps({"priority": CANARY})},
    "an expiration": {"properties": json.dumps({"expiration": CANARY})},
    "a timestamp": {"properties": json.dumps({"timestamp": CANARY})},
    "a delivery mode": {"properties": json.dumps({"delivery_mode": CANARY})},
    "a correlation id": {"properties": json.dumps({"correlation_id": CANARY * 40})},
    "a user": {"properties": json.dumps({"user_id": CANARY})},
    "further routes": {"headers": json.dumps({"CC": [CANARY]})},
    "a declaration": {"declare": f'[{{"kind": "{CANARY}"}}]'},
}


@pytest.mark.parametrize("columns", BAD.values(), ids=BAD)
def test_a_reason_does_not_repeat_the_value(columns: dict[str, Any]) -> None:
    """What is said of a bad value names the field: it is logged, and shown by `outbox.dead`."""
    message = a_message(**columns)
    said = []
    for attempt in (
        lambda: Encoder(131_072, RESERVED).frames(message, 1, 0.0),
        lambda: envelope(message, b"tag"),
        lambda: described(message.declare),
    ):
        try:
            attempt()
        except (Unpublishable, ValueError) as error:
            said.append(str(error))

    assert said
    assert CANARY not in "".join(said)


def test_no_payload_shows_anywhere(
    relay: RelayFactory, database: str, broker: Broker, postgres: Postgres
) -> None:
    """Logs at the lowest level, metrics, reasons, arguments, and Postgres' activity and log."""
    headers = json.dumps({"task": "shop.bill", "argsrepr": f"('{CANARY}',)", "x": CANARY})
    payload: dict[str, Any] = {"body": f'[["{CANARY}"], {{}}]'.encode(), "headers": headers}
    commit_rows(database, 20, declare=QUEUE, **payload)
    commit_rows(database, routing_key="nowhere", **payload)
    commit_rows(database, exchange="nowhere", **payload)
    commit_rows(database, content_type="application/x-python-serialize", **payload)
    for columns in [each for name, each in BAD.items() if name != "no object"]:  # never stored
        commit_rows(database, **{**payload, **columns})
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_MAX_ATTEMPTS="1",
        OUTBOX_LOG_LEVEL="debug",
    )
    wait_until(lambda: states(database)["pending"] == 0, 60, "all to be sent or dead")
    assert states(database)["sent"] >= 20
    metrics, process = running.metrics(), Path(f"/proc/{running.process.pid}")
    with psycopg.connect(database) as connection:
        activity = str(
            connection.execute(
                "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'outbox-relay%'"
            ).fetchall()
        )
        reasons = str(connection.execute("SELECT last_error FROM outbox.dead").fetchall())
    arguments = process.joinpath("cmdline").read_text()
    running.stop()

    assert "messages_dead" in running.output()
    assert "SELECT" in activity
    for place in (running.output(), metrics, activity, reasons, arguments):
        for form in (CANARY, CANARY.encode().hex()):
            assert form not in place
    assert CANARY not in postgres.log.read_text()


def test_no_password_shows_anywhere(relay: RelayFactory, database: str, broker: Broker) -> None:
    """Neither in arguments, nor in logs, nor on the endpoint; also where they are wrong."""
    database_password, broker_password = urlsplit(database).password, broker.node.password
    assert database_password
    wrong = broker.url.replace(broker_password, f"{CANARY}-wrong")
    running = relay(
        OUTBOX_DATABASE_URL=database,
        OUTBOX_BROKER_URL=f"{wrong};{broker.url}",
        OUTBOX_LOG_LEVEL="debug",
    )
    refused = relay(wait=False, OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=wrong)
    refused.wait_for_event("broker_lost")
    arguments = Path(f"/proc/{running.process.pid}/cmdline").read_text()
    metrics = running.metrics()
    for program in (running, refused):
        program.stop()

    for secret in (database_password, broker_password, CANARY):
        for place in (arguments, metrics, running.output(), refused.output()):
            assert secret not in place


def test_settings_do_not_print_secrets() -> None:
    """A traceback or a debugger shows the name."""
    settings = from_environment(
        {
            "OUTBOX_DATABASE_URL": f"postgresql://relay:{CANARY}@db/shop",
            "OUTBOX_BROKER_URL": f"amqp://relay:{CANARY}@mq",
            "OUTBOX_BROKER_TRANSPORT_OPTIONS": json.dumps({"password": CANARY}),
        }
    )

    assert CANARY not in f"{settings} {settings!r} {vars(type(settings))}"


def test_a_line_of_the_log_is_a_line(relay: RelayFactory, database: str, broker: Broker) -> None:
    """Names that rows bring along can neither end a line, nor colour it, nor fill the disk."""
    forged = '\r\n{"event": "relay_stopped"}\x1b[31m'
    commit_rows(database, exchange=f"{forged}x", message_ids=[f"{forged}{'y' * 200}"])
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    running = relay(**urls, OUTBOX_MAX_ATTEMPTS="1")
    wait_until(lambda: states(database)["dead"] == 1, 30, "the message to be dead")
    running.stop()

    lines = running.output().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert "messages_dead" in events
    assert events.count("relay_stopped") == 1
    assert "\x1b" not in running.output()
    assert max(map(len, lines)) < 2000


@pytest.mark.parametrize("half", [b"", b"postgresql://", b"amqp://relay:hun", b"\xff\xfe"])
def test_a_secret_that_is_being_replaced_is_waited_for(
    database: str, broker: Broker, tmp_path: Path, half: bytes
) -> None:
    """Empty or half written when the relay connects again: an outage, and no other server."""
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    settings, files = settings_in_files(tmp_path, **urls)
    connect = publisher_factory(settings)
    open_store(settings).close()
    connect().close()
    for file in files:
        file.write_bytes(half)

    with pytest.raises(StoreLost, match=r"^OUTBOX_DATABASE_URL_FILE (is|cannot be read)"):
        open_store(settings)
    with pytest.raises(BrokerLost, match=r"^OUTBOX_BROKER_URL_FILE (is|cannot be read)"):
        connect()

    for file, url in zip(files, urls.values(), strict=True):
        file.write_text(url)
    open_store(settings).close()
    connect().close()


def test_options_that_are_being_replaced_are_waited_for(broker: Broker, tmp_path: Path) -> None:
    """Without its prefix a relay would put messages where no worker looks."""
    settings, (_, url, options) = settings_in_files(
        tmp_path,
        OUTBOX_DATABASE_URL="postgresql:///shop",
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_BROKER_TRANSPORT_OPTIONS="{}",
    )
    connect = publisher_factory(settings)
    connect().close()
    for half in ("", '{"global_keyp'):
        options.write_text(half)
        with pytest.raises(BrokerLost, match="OUTBOX_BROKER_TRANSPORT_OPTIONS_FILE is"):
            connect()
    options.write_text("{}")
    url.write_text(f"amqps://localhost:1?ssl_ca_c={CANARY}")

    with pytest.raises(BrokerLost, match="ssl_ca_c is not an option"):
        connect()
    with pytest.raises(SettingsError, match="ssl_ca_c is not an option"):
        publisher_factory(settings)()


def settings_in_files(folder: Path, **secrets: str) -> tuple[Settings, list[Path]]:
    """Settings whose secrets are in files, and these files."""
    files = {f"{name}_FILE": folder / name for name in secrets}
    for file in files.values():
        file.write_text(secrets[file.name])
    return from_environment({name: str(file) for name, file in files.items()}), [*files.values()]
