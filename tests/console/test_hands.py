"""The console under the hands of people: by keyboard alone, with a screen reader, and attacked.

In a real Chromium. axe checks what it knows of WCAG; what it finds serious fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.console.chromium import chromium, context, tab
from tests.console.conftest import Browse, bury
from tests.console.test_actions import record
from tests.console.test_pages import PAGES
from tests.fixtures.rows import commit_rows, ids_in, states

__all__ = ["chromium", "context", "tab"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # a browser on a busy machine

_SERIOUS = ("serious", "critical")
_FORGED = """
<form id="f" method="post" action="{target}/actions">
<input name="state" value="dead"><input name="action" value="discard"><input name="all" value="1">
<input name="newest" value="99"><input name="count" value="9"></form>
<script>document.getElementById("f").submit()</script>
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_nothing_serious_is_in_the_way_of_who_cannot_see(
    browse: Browse, ten: str, chromium: Browser, scheme: str, size: tuple[int, int]
) -> None:
    """Names, contrasts, roles and order, on every page, wide and narrow, light and dark."""
    address = browse(ten).base_url
    dead = f"/messages?state=dead&task={'x' * 3}"
    opened = chromium.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport={"width": size[0], "height": size[1]},
    )
    found = {}
    for path in (*PAGES, "/messages/1", "/messages/6", dead, "/nothing"):
        page = opened.new_page()
        page.set_default_timeout(60_000)
        page.goto(f"{address}{path}")
        answer = Axe().run(page)
        found[path] = [
            (each["id"], node["html"][:200])
            for each in answer.response["violations"]
            if each["impact"] in _SERIOUS
            for node in each["nodes"]
        ]
        page.close()
    opened.close()

    assert {path: serious for path, serious in found.items() if serious} == {}


#: By how much the page is wider than the window, or a table than its frame.
_TOO_WIDE = """
Math.max(
    document.documentElement.scrollWidth - window.innerWidth,
    ...[...document.querySelectorAll(".scroll")].map(each => each.scrollWidth - each.clientWidth)
)
"""
_MILLIONS = """
document.querySelectorAll(".count [data-number], .badge")
    .forEach(each => { each.textContent = "11,234,567" })
"""


@pytest.mark.parametrize("width", [360, 390, 800, 980])
def test_no_page_is_wider_than_its_window(
    browse: Browse, ten: str, chromium: Browser, width: int
) -> None:
    """Nor a table than its frame, which would cut off a column; not with millions, either."""
    address = browse(ten).base_url
    page = chromium.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(60_000)
    page.route("**/events", lambda route: route.abort())  # it would set the counts right again
    wide = {}
    for path in (*PAGES, "/messages/1", "/messages/6", "/nothing"):
        page.goto(f"{address}{path}")
        page.evaluate(_MILLIONS)
        wide[path] = page.evaluate(_TOO_WIDE)
    page.close()

    assert {path: by for path, by in wide.items() if by > 0} == {}


def tab_to(page: Page, name: str) -> None:
    """Press Tab until what has this name, or begins with it, has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        text = page.evaluate(
            "document.activeElement.ariaLabel || document.activeElement.textContent"
        )
        if str(text).strip().startswith(name):
            return
    raise AssertionError(f"no Tab leads to {name}")


def test_a_message_is_found_and_retried_by_keyboard(browse: Browse, outbox: str, tab: Page) -> None:
    """From the overview to the record, without a pointer."""
    bury(outbox, commit_rows(outbox, message_ids=["lost-invoice"]))
    tab.goto(f"{browse(outbox).base_url}/")

    tab.keyboard.press("/")
    tab.keyboard.type("lost-invoice")
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_contain_text("dead")
    tab_to(tab, "Retry")
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_contain_text("Retry 1 dead message?")
    expect(tab.locator("input[name=why]")).to_be_focused()
    tab.keyboard.type("ticket 4711")
    tab_to(tab, "Retry 1 dead message")
    tab.keyboard.press("Enter")
    expect(tab.locator("[role=status]")).to_contain_text("Retry: 1 message")

    assert ids_in(outbox, "pending") == {"lost-invoice"}
    assert record(outbox) == [("local", "retry", 1, "ticket 4711")]


def test_the_chosen_are_chosen_by_keyboard(browse: Browse, outbox: str, tab: Page) -> None:
    """Space chooses a row; the buttons wake up, and the skip link leads past the top."""
    bury(outbox, commit_rows(outbox, message_ids=["a", "b"]))
    tab.goto(f"{browse(outbox).base_url}/messages?state=dead")
    expect(tab.locator("button[value=retry]")).to_be_disabled()

    tab.keyboard.press("Tab")
    assert "To the content" in tab.evaluate("document.activeElement.textContent")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    tab_to(tab, "Choose shop")
    tab.keyboard.press("Space")
    expect(tab.locator("[data-chosen]")).to_have_text("1")
    for _ in range(6):
        tab.keyboard.press("Shift+Tab")
        if tab.evaluate("document.activeElement.value") == "retry":
            break
    tab.keyboard.press("Enter")

    expect(tab.locator("h1")).to_contain_text("Retry 1 dead message?")


#: What can have the focus on a page, by its markup.
_STOPS = """[...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")]
    .filter(e => !e.disabled && e.type !== "hidden" && e.checkVisibility()).length"""
#: What has the focus, and how it is outlined.
_FOCUSED = """(() => {
    const e = document.activeElement;
    if (e === document.body) return null;
    const s = getComputedStyle(e);
    return [e.outerHTML.slice(0, 120), s.outlineStyle, parseFloat(s.outlineWidth), s.outlineColor];
})()"""


@pytest.mark.parametrize("path", ["/", "/messages?state=dead", "/messages/5", "/failures"])
def test_where_one_is_can_be_seen(browse: Browse, ten: str, tab: Page, path: str) -> None:
    """Every stop of the way has an outline around it, and the way has all stops there are."""
    tab.goto(f"{browse(ten).base_url}{path}")
    stops = tab.evaluate(_STOPS)
    assert stops >= 10

    seen: list[str] = []
    for _ in range(stops):
        tab.keyboard.press("Tab")
        focused = tab.evaluate(_FOCUSED)
        assert focused is not None, seen[-1:]
        name, style, width, color = focused
        assert (style, width >= 2) == ("solid", True), name
        assert color not in ("transparent", "rgba(0, 0, 0, 0)"), name
        seen.append(name)
    tab.keyboard.press("Tab")

    assert tab.evaluate(_FOCUSED) is None  # behind the last


@contextmanager
def elsewhere(page: str) -> Iterator[str]:
    """The address of another site that has one page."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(10)


def test_a_form_of_another_site_is_refused(browse: Browse, outbox: str, tab: Page) -> None:
    """Sent by the browser of somebody who is signed in; nothing is done, and the page says so."""
    bury(outbox, commit_rows(outbox, 1))
    address = str(browse(outbox).base_url).rstrip("/")
    tab.goto(f"{address}/messages?state=dead")  # has the cookie now

    with elsewhere(_FORGED.format(target=address)) as site:
        tab.goto(site)
        expect(tab.locator("body")).to_contain_text("another site")

    assert (states(outbox)["dead"], record(outbox)) == (1, [])


def test_another_site_shows_no_page_of_ours_in_its_own(browse: Browse, ten: str, tab: Page) -> None:
    """Nobody is made to press a button that they do not see."""
    address = str(browse(ten).base_url).rstrip("/")
    with elsewhere(f"<iframe src='{address}/messages?state=dead'></iframe>") as site:
        tab.goto(site)
        frame = tab.frames[-1]
        frame.wait_for_load_state()

        assert "Given up" not in frame.content()
