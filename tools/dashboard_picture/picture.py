"""The page as Chromium shows it, in a file that is small enough for the documentation."""

import json
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from dashboard_picture.needs import Programs
from dashboard_picture.recording import Recording

#: As wide as a dashboard that can be read on a page of the documentation.
WIDTH: Final = 1240
COLOURS: Final = 256
PATIENCE_MS: Final = 60_000


class DrawingFailed(RuntimeError):
    """The page's script did not draw everything; the message has what the browser says."""


def take(programs: Programs, page: Path, recording: Recording, file: Path) -> None:
    """Draw a recording, and write the picture of it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=programs.browser,
            args=["--no-sandbox"],  # which root may not do without; the page is our own
        )
        tab = browser.new_page(viewport={"width": WIDTH, "height": 900}, timezone_id="UTC")
        complaints: list[str] = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.add_init_script(f"window.recording = {json.dumps(recording)}")
        tab.goto(page.as_uri())
        _wait_until_drawn(tab, complaints)
        tab.screenshot(path=file, full_page=True)
        browser.close()
    shrink(file)


def shrink(file: Path) -> None:
    """Few colours, which a dashboard has anyway, and among them those of small things."""
    picture = Image.open(file).convert("RGB")
    method = Image.Quantize.MAXCOVERAGE  # alone, it would tint what is large
    few = picture.quantize(COLOURS, method, kmeans=1, dither=Image.Dither.NONE)
    few.save(file, optimize=True)


def _wait_until_drawn(tab: Page, complaints: list[str]) -> None:
    try:
        tab.wait_for_selector("body[data-drawn]", timeout=PATIENCE_MS)
    except Exception as error:
        raise DrawingFailed("\n".join([str(error), *complaints])) from error
    if complaints:
        raise DrawingFailed("\n".join(complaints))
