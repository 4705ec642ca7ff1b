"""A page that stays open while very much passes: its figures stay right, and its memory small."""

import os
import time
from threading import Event, Thread
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page

from tests.console.chromium import chromium, context, tab
from tests.console.conftest import Browse, confirm
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until

__all__ = ["chromium", "context", "tab"]

#: Ten where somebody has time for it: CONSOLE_MINUTES=10 pytest tests/console/test_ten_minutes.py
MINUTES = float(os.environ.get("CONSOLE_MINUTES", "1"))
MESSAGES = 100_000
BATCH = 500


def pass_through(url: str, seconds: float, ended: Event) -> None:
    """A hundred thousand messages, committed and confirmed, evenly over the time."""
    began = time.monotonic()
    for done in range(0, MESSAGES, BATCH):
        confirm(url, commit_rows(url, BATCH))
        ended.wait(began + seconds * done / MESSAGES - time.monotonic())


def shown(tab: Page) -> dict[str, str]:
    """The numbers of the overview as they stand there."""
    found: dict[str, Any] = tab.evaluate(
        "Object.fromEntries([...document.querySelectorAll('[data-number]')]"
        ".map(e => [e.dataset.number, e.textContent]))"
    )
    return found


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
    tab.goto(f"{browse(outbox).base_url}/")
    tab.wait_for_timeout(12_000)  # the charts were drawn once by then
    before, elements = heap(tab), tab.locator("*").count()
    ended = Event()
    thread = Thread(target=pass_through, args=(outbox, 60 * MINUTES, ended), daemon=True)
    thread.start()
    highest = 0.0
    while thread.is_alive():
        tab.wait_for_timeout(5000)
        highest = max(highest, float(shown(tab)["committed"].replace(",", "")))
    commit_rows(outbox, 7)
    commit_rows(outbox, 3, available_in=3600)

    def figures() -> list[str]:
        tab.wait_for_timeout(500)
        now = shown(tab)
        return [now[name] for name in ("pending", "scheduled", "dead", "expired", "committed")]

    wait_until(lambda: figures() == ["7", "3", "0", "0", "0"], 60, "that numbers are as in SQL")
    with psycopg.connect(outbox) as connection:
        stats = connection.execute("SELECT pending, scheduled, dead FROM outbox.stats").fetchone()

    assert stats == (7, 3, 0)
    assert highest > 0
    assert complaints == []
    assert tab.locator("*").count() < elements + 20
    assert heap(tab) < before + 5
