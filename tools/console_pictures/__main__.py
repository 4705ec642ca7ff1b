"""Makes docs/pictures/: the console's pages as pictures, of a shop that is invented.

`make console-pictures`, where a Chromium is at hand (Debian: apt-get install chromium). With
arguments `FOLDER none|ten|many`, every page at two widths, light and dark, to be looked at.
"""

import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import Final
from urllib.request import urlopen

import psycopg
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from console_pictures.shop import ROWS, an_hour, fill, go_on
from outbox_console.app import serve_app
from outbox_console.outbox.pulse import Pulse
from outbox_console.settings import read
from outbox_migrations import grant, upgrade
from servers import Postgres, ServerMissing
from servers.ports import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
PICTURES: Final = ROOT / "docs" / "pictures"

#: How relays name their connections.
RELAY: Final = "outbox-relay 0.1.0 aaaa.bbbbbb.cccc"

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


class Serving(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = threading.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """As always."""
        await super().startup(sockets)
        self.listens.set()


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
        config = uvicorn.Config(app, port=port, log_level="error", lifespan="off")
        serving = Serving(config)
        thread = threading.Thread(target=serving.run, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{port}"
        if not serving.listens.wait(30):
            raise SystemExit(f"the console does not listen at {address}")
        settle(address)
        yield address, dead
        serving.should_exit = True
        thread.join(10)


def settle(address: str) -> None:
    """Wait until the console has told a few samples, so that rates are right."""
    with urlopen(f"{address}/events", timeout=30) as stream:
        for _ in range(8):
            stream.readline()


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
