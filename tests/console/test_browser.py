"""The pages in a real Chromium: nothing is refused by our own policy, and what moves does move.

Where it is enough, what the browser knows after a while is printed by itself (`--dump-dom`).
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.console.chromium import chromium, context, tab
from tests.console.conftest import Browse
from tests.fixtures.rows import commit_rows

__all__ = ["chromium", "context", "tab"]
pytestmark = pytest.mark.long
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def dom(url: str, folder: Path, seconds: int = 3) -> tuple[str, str]:
    """A page as it stands after some seconds in the browser, and what that complained of."""
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu"]
    command += ["--enable-logging=stderr", "--v=0", f"--user-data-dir={folder}"]
    command += [f"--timeout={1000 * seconds}", "--dump-dom", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, "\n".join(re.findall(r".*CONSOLE.*", done.stderr))


@pytest.mark.parametrize(
    "path", ["/", "/messages?state=dead", "/messages/1", "/failures", "/actions", "/nothing"]
)
def test_a_browser_has_nothing_to_complain_of(
    browse: Browse, ten: str, tmp_path: Path, path: str
) -> None:
    """No script fails, nothing is blocked by the policy, times are in the viewer's zone."""
    browser = browse(ten)
    page, complaints = dom(f"{browser.base_url}{path}", tmp_path)
    complaints = "\n".join(c for c in complaints.splitlines() if "status of 404" not in c)

    assert complaints == ""
    assert "<title>(2) " in page  # by the stream of events
    assert not re.search(r"<time[^>]*>[^<]*UTC<", page)


def test_numbers_move_in_an_open_page(browse: Browse, outbox: str, tab: Page) -> None:
    """What is committed while the page is open is on it; and the sentence has changed."""
    tab.goto(f"{browse(outbox).base_url}/")
    pending = tab.locator("[data-number=pending]")
    expect(pending).to_have_text("0")

    commit_rows(outbox, 3)

    expect(pending).to_have_text("3", timeout=60_000)
    expect(tab.locator("#verdict")).to_contain_text("No relay is connected, and 3 messages wait")


def test_nothing_is_done_without_a_choice(browse: Browse, ten: str, tmp_path: Path) -> None:
    """The buttons of a list wait until something is chosen."""
    page, _ = dom(f"{browse(ten).base_url}/messages?state=dead", tmp_path)

    buttons = re.findall(r"<button[^>]*data-needs-chosen[^>]*>", page)
    assert len(buttons) == 2
    assert [button for button in buttons if "disabled" not in button] == []
