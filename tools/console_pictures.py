"""Makes docs/pictures/: the console's pages as pictures, of a shop that is invented.

`make console-pictures`, where a Chromium is at hand (Debian: apt-get install chromium). With
arguments `FOLDER none|ten|many`, every page at two widths, light and dark, to be looked at.
"""

import json
import math
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from outbox_console.app import serve_app
from outbox_console.outbox.pulse import Pulse
from outbox_console.outbox.samples import Sample
from outbox_console.settings import read
from outbox_migrations import grant, upgrade
from servers import Postgres, ServerMissing
from servers.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = ROOT / "docs" / "pictures"

#: How relays name their connections.
RELAY: Final = "outbox-relay 0.1.0 aaaa.bbbbbb.cccc"

#: Messages of a shop; `kind` says what becomes of them below.
INSERT: Final = """
INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, properties, body,
                            content_type, content_encoding, created_at, available_at)
SELECT gen_random_uuid()::text,
       (ARRAY['shop.orders.send_invoice', 'shop.mail.welcome', 'shop.stock.reserve',
              'payments.capture'])[1 + i %% 4],
       CASE WHEN i %% 4 = 3 THEN 'payments' ELSE '' END,
       (ARRAY['celery', 'mail', 'celery', 'eu.captured'])[1 + i %% 4],
       json_build_object('lang', 'py', 'argsrepr', format('(%%s, ''EUR'')', 8000 + i),
           'kwargsrepr', CASE WHEN i %% 3 = 0 THEN '{''gift'': True}' ELSE '{}' END,
           'root_id', gen_random_uuid(), 'retries', 0),
       '{"delivery_mode": 2, "priority": 0}',
       convert_to(format('[[%%s, "EUR"], {}, {"callbacks": null, "errbacks": null}]', 8000 + i),
                  'utf8'),
       'application/json', 'utf-8',
       now() - CASE WHEN %(kind)s = 'dead' THEN interval '3 h' ELSE interval '20 ms' END,
       CASE WHEN %(kind)s = 'scheduled' THEN now() + (i %% 500 * 7 + 60) * interval '1 second' END
  FROM generate_series(1, %(count)s) AS i
"""
#: What is pending, but for what was so from the beginning.
CONFIRM: Final = """
WITH gone AS (DELETE FROM outbox.ready WHERE id > %s RETURNING id)
INSERT INTO outbox.receipt (span, ids)
SELECT int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id) FROM gone
"""
ENDINGS: Final[dict[str, LiteralString]] = {
    "sent": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id)
INSERT INTO outbox.receipt (span, ids, sent_at)
SELECT int8range(min(id), max(id), '[]'), array_agg(id ORDER BY id),
       now() + (min(id) - (SELECT max(id) FROM gone)) * interval '30 ms'
  FROM gone GROUP BY id / 500""",
    "dead": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.parked (id, slot, state, available_at, attempts, last_error)
SELECT id, slot, 'dead', now() - random() * random() * interval '3 h', 10,
       (ARRAY['312 NO_ROUTE: no queue takes eu.captured from exchange payments',
              'PRECONDITION_FAILED - message size 22212311 is larger than configured max size '
              || '16777216'])[1 + (id % 5 = 0)::int]
  FROM gone""",
    "expired": """
WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)
INSERT INTO outbox.expiry (id, slot, last_error)
SELECT id, slot, 'a worker was told' FROM gone""",
    "pending": "SELECT 1",
    "scheduled": "SELECT 1",
}
WATCHED: Final = (
    "INSERT INTO inbox.watched SELECT DISTINCT task, now() - interval '4 h' FROM outbox.sent"
)
RECEIPTS: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, error, worker, received_at, finished_at)
SELECT message_id, task, CASE WHEN id % 23 = 0 THEN 'failed' ELSE 'succeeded' END,
       CASE WHEN id % 23 = 0 THEN 'KeyError' END, 'celery@web-1', sent_at, sent_at
  FROM outbox.sent WHERE id % 1013 <> 0
"""
#: Of what a relay has just confirmed.
DONE: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'celery@web-2', now(), now() FROM outbox.message
 ORDER BY id DESC LIMIT 10 ON CONFLICT DO NOTHING
"""
#: How many of each, in this order: what is pending comes last.
ROWS: Final = {
    "docs": {"sent": 4000, "expired": 3, "dead": 37, "scheduled": 212, "pending": 18},
    "none": {},
    "ten": {"sent": 3, "expired": 1, "dead": 5, "scheduled": 2, "pending": 2},
    "many": {
        "sent": 100_000, "expired": 20_000, "dead": 30_000, "scheduled": 30_000, "pending": 100_000,
    },
}  # fmt: skip
PAGES: Final = {
    "overview": "/",
    "pending": "/messages?state=pending",
    "scheduled": "/messages?state=scheduled",
    "dead": "/messages?state=dead",
    "sent": "/messages?state=sent",
    "missing": "/messages?state=missing",
    "expired": "/messages?state=expired",
    "search": "/messages?state=dead&task=payments.capture&reason=NO_ROUTE",
    "message": "/find?id={dead}",
    "failures": "/failures",
    "routes": "/routes",
    "workers": "/workers",
    "doctor": "/doctor",
    "actions": "/actions",
    "nothing": "/messages/999999999",
}


@dataclass(frozen=True, slots=True)
class Camera:
    """A way to look: the size of the window, and whether it is dark."""

    width: int
    height: int
    dark: bool = False

    def take(self, browser: Browser, url: str, file: Path) -> None:
        """A picture of a page, once its script has run and the stream has told."""
        page = browser.new_page(
            viewport={"width": self.width, "height": self.height},
            color_scheme="dark" if self.dark else "light",
        )
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_timeout(1500)
        page.screenshot(path=file)
        page.close()
        picture = Image.open(file).convert("RGB").quantize(96, dither=Image.Dither.NONE)
        picture.save(file, optimize=True)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, or an error that says how to get one."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise SystemExit("no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def an_hour(at: datetime) -> Iterator[Sample]:
    """What an hour of a shop might look like: a flow, and a broker that was away for a while."""
    chance, waiting = random.Random(7), 0.0
    for second in range(-3600, 0, 2):
        rate = 38 + 14 * math.sin(second / 700) + chance.gauss(0, 3)
        away = -2100 < second < -1900
        sent = 0.0 if away else min(rate + waiting / 2, 160)
        waiting = max(0.0, waiting + 2 * (rate - sent))
        yield Sample(
            at=at + timedelta(seconds=second),
            pending=int(waiting) + chance.randint(2, 18),
            scheduled=212,
            dead=37 if second > -1900 else 0,
            expired=3,
            oldest=max(0.02, (second + 2100) if away else waiting / 160),
            committed=rate,
            confirmed=sent,
            lag=0.014,
            quiet=0.1,
            relays=2,
            executed=sent * 0.99,
        )


def go_on(url: str, ended: threading.Event) -> None:
    """Forty orders a second, and a relay that confirms them, until told to stop."""
    with psycopg.connect(url, autocommit=True) as connection:
        stays = connection.execute("SELECT max(id) FROM outbox.ready").fetchall()[0]
        while not ended.wait(0.24):
            connection.execute(INSERT, {"kind": "sent", "count": 10})
            connection.execute(CONFIRM, stays)
            connection.execute(DONE)


@contextmanager
def console(kind: str, folder: Path) -> Iterator[tuple[str, int]]:
    """The address of a console, and the id of a dead message."""
    with ExitStack() as stack:
        server = Postgres(folder)
        stack.callback(server.discard)
        url = server.start().create_database("shop")
        upgrade(url)
        grant(url)
        dead = fill(url, ROWS[kind])
        if kind == "docs":
            ended = threading.Event()
            threading.Thread(target=go_on, args=(url, ended), daemon=True).start()
            stack.callback(ended.set)
            for _ in range(2):  # these stand for two relays
                stack.enter_context(psycopg.connect(url, application_name=RELAY))
        app = serve_app(
            read({"OUTBOX_DATABASE_URL": url, "OUTBOX_CONSOLE_ROLE": "operator-with-payload"})
        )
        if kind == "docs":
            known = app.state.console
            history = an_hour(datetime.now(UTC))
            app.state.console = replace(known, pulse=Pulse(known.database, history))
        port = free_port()
        serving = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
        thread = threading.Thread(target=serving.run, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{port}"
        settle(address)
        yield address, dead
        serving.should_exit = True
        thread.join(10)


def settle(address: str) -> None:
    """Wait until the console listens and has told a few samples, so that rates are right."""
    for _ in range(100):
        try:
            with urlopen(f"{address}/events", timeout=10) as stream:
                for _ in range(8):
                    stream.readline()
            return
        except URLError:
            time.sleep(0.1)


def fill(url: str, rows: dict[str, int]) -> int:
    """Make the messages of each kind; the id of a dead one."""
    with psycopg.connect(url) as connection:
        for kind, count in rows.items():
            connection.execute(INSERT, {"kind": kind, "count": count})
            connection.execute(ENDINGS[kind])
        found = connection.execute("SELECT max(id) FROM outbox.dead WHERE task ~ 'capture'")
        dead = found.fetchall()[0][0] or 0
        if rows:
            work(connection)
        act = """SELECT outbox.act('discard', ARRAY(
            SELECT id FROM outbox.dead WHERE id <> %s ORDER BY id LIMIT 1), %s, %s)"""
        for name, why in (("ada", "a test order"), ("grace", "cancelled by phone, ticket 4711")):
            connection.execute(act, [dead, name, why])
    return int(dead)


def work(connection: psycopg.Connection[Any]) -> None:
    """Two workers that announce themselves, one that was lost, and receipts of what was sent."""
    tasks = ["shop.orders.send_invoice", "shop.mail.welcome", "shop.stock.reserve", "shop.report"]
    for node, queues, seconds in (
        ("celery@web-1", ["celery"], 60),
        ("celery@web-2", ["celery", "mail"], 60),
        ("celery@old-7", ["celery"], -600),
    ):
        said = json.dumps({"queues": queues, "tasks": [*tasks, "shop.cleanup"]})
        connection.execute("SELECT inbox.announce(%s, %s, %s)", [node, said, seconds])
    connection.execute(WATCHED)
    connection.execute(RECEIPTS)


def everything(folder: Path, kind: str) -> None:
    """Every page, at two widths, light and dark."""
    cameras = {
        "wide": Camera(1280, 900),
        "wide-dark": Camera(1280, 900, dark=True),
        "phone": Camera(390, 844),
        "phone-dark": Camera(390, 844, dark=True),
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="pictures-"))
    with chromium() as browser, console(kind, temporary) as (address, dead):
        for page, path in PAGES.items():
            for name, camera in cameras.items():
                file = folder / f"{kind}-{page}-{name}.png"
                camera.take(browser, address + path.format(dead=dead), file)
                print(file.name, flush=True)


def main() -> int:
    """Those of the documentation, or everything."""
    if len(sys.argv) == 3:
        everything(Path(sys.argv[1]), sys.argv[2])
        return 0
    PICTURES.mkdir(exist_ok=True)
    taken = {
        "console-overview": ("overview", Camera(1280, 770)),
        "console-overview-dark": ("overview", Camera(1280, 770, dark=True)),
        "console-dead": ("dead", Camera(1280, 700)),
        "console-message": ("message", Camera(1280, 900)),
        "console-failures": ("failures", Camera(1280, 640)),
        "console-routes": ("routes", Camera(1280, 420)),
        "console-workers": ("workers", Camera(1280, 620)),
        "console-phone": ("overview", Camera(390, 844)),
    }
    try:
        temporary = Path(tempfile.mkdtemp(prefix="pictures-"))
        with chromium() as browser, console("docs", temporary) as (address, dead):
            for name, (page, camera) in taken.items():
                url = address + PAGES[page].format(dead=dead)
                camera.take(browser, url, PICTURES / f"{name}.png")
                print(f"docs/pictures/{name}.png", flush=True)
    except ServerMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
