"""A page that stays open while very much passes: its figures stay right, and its memory small."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import psycopg
import pytest
from playwright.sync_api import Page, expect

from tests.console.chromium import chromium, context, tab
from tests.console.conftest import Browse, confirm
from tests.fixtures.rows import commit_rows

__all__ = ["chromium", "context", "tab"]

#: Ten where somebody has time for it: CONSOLE_MINUTES=10 pytest tests/console/test_ten_minutes.py
MINUTES = float(os.environ.get("CONSOLE_MINUTES", "1"))
MESSAGES = 100_000
BATCH = 500


def pass_through(url: str, seconds: float, ended: Event) -> int:
    """Commit and confirm the messages, evenly over the time; how many it were."""
    began = time.monotonic()
    for done in range(0, MESSAGES, BATCH):
        confirm(url, commit_rows(url, BATCH))
        if ended.wait(began + seconds * done / MESSAGES - time.monotonic()):
            return done + BATCH
    return MESSAGES


#: Keeps what the page has shown, each time that it shows something else.
_WATCH = """() => {
    const watched = document.querySelector("[data-number=committed]");
    window.shown = [];
    new MutationObserver(() => window.shown.push(Number(watched.textContent.replaceAll(",", ""))))
        .observe(watched, {childList: true, characterData: true, subtree: true});
}"""
_SQL = """
SELECT s.pending, s.scheduled, s.dead, (SELECT sum(cardinality(ids)) FROM outbox.receipt)
  FROM outbox.stats s
"""


def heap(tab: Page) -> float:
    """Megabytes of the page's heap, once what is garbage was collected."""
    client = tab.context.new_cdp_session(tab)
    client.send("HeapProfiler.collectGarbage")
    usage = client.send("Runtime.getHeapUsage")
    return float(usage["usedSize"]) / 1e6


@pytest.mark.long
@pytest.mark.timeout(60 * MINUTES + 900)
def test_a_page_stays_right_and_small(browse: Browse, outbox: str, tab: Page) -> None:
    """After a hundred thousand messages its numbers are SQL's, and it has grown by nothing."""
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    address = browse(outbox).base_url
    with tab.expect_response(lambda answer: answer.url.endswith("/hour"), timeout=60_000):
        tab.goto(f"{address}/")  # from here on the charts have been drawn anew once
    before, elements = heap(tab), tab.locator("*").count()
    tab.evaluate(_WATCH)
    ended = Event()
    with ThreadPoolExecutor(1) as pool:
        passing = pool.submit(pass_through, outbox, 60 * MINUTES, ended)
        try:
            assert passing.result(60 * MINUTES + 600) == MESSAGES
        finally:
            ended.set()
    # As autovacuum does soon: until then what is left of a large table is counted by a sample.
    with psycopg.connect(outbox, autocommit=True) as connection:
        connection.execute("VACUUM outbox.ready")
    commit_rows(outbox, 7)
    commit_rows(outbox, 3, available_in=3600)
    figures = {"pending": "7", "scheduled": "3", "dead": "0", "expired": "0", "committed": "0"}
    for name, figure in figures.items():
        expect(tab.locator(f"[data-number={name}]")).to_have_text(figure, timeout=60_000)
    shown = tab.evaluate("window.shown")
    with psycopg.connect(outbox) as connection:
        counted = connection.execute(_SQL).fetchone()

    assert counted == (7, 3, 0, MESSAGES)
    assert len(shown) > 5  # it has moved all the time
    assert max(shown) > 0
    assert complaints == []
    assert tab.locator("*").count() < elements + 20
    assert heap(tab) < before + 5
