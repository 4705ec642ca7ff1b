"""Writes docs/dashboard.png: a play of eight minutes, and what the dashboard shows of it.

`make dashboard-picture`, where Node and a Chromium are at hand. What Prometheus answered is kept in
`.dashboard/`: `ARGS=--again` draws it once more, as after a change of web/ or of panels' looks.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from time import time
from typing import Final

from dashboard_picture import bundle, picture, play
from dashboard_picture.bundle import BundleFailed
from dashboard_picture.needs import ProgramMissing, Programs
from dashboard_picture.picture import DrawingFailed
from dashboard_picture.recording import CannotDraw, Recording, panels_of, record
from dashboard_picture.stage import Stage
from demo.programs import ProgramEnded
from grafana.__main__ import PATH as DASHBOARD
from servers import ServerMissing, StartFailed

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / ".dashboard"
RECORDED: Final = FOLDER / "recording.json"
PICTURE: Final = ROOT / "docs/dashboard.png"

ERRORS: Final = (
    BundleFailed, CannotDraw, DrawingFailed, ProgramEnded, ProgramMissing, ServerMissing,
    StartFailed,
)  # fmt: skip


def main() -> int:
    """Play, ask and draw, or only draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="draw the last play once more")
    again = parser.parse_args().again
    if again and not RECORDED.exists():
        parser.error("there is no play to draw once more: leave out --again")
    try:
        programs = Programs.found()
        panels = panels_of(DASHBOARD)
        page = bundle.built(programs, FOLDER)
        if not again:
            RECORDED.write_text(json.dumps(_performed(panels)))
        recording: Recording = json.loads(RECORDED.read_text())
        recording["panels"] = panels
        picture.take(programs, page, recording, PICTURE)
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Written: {PICTURE} ({PICTURE.stat().st_size // 1024} KB)")
    return 0


def _performed(panels: list[dict[str, object]]) -> Recording:
    """What the dashboard shows of a play."""
    folder = Path(tempfile.mkdtemp(prefix="dashboard-"))
    try:
        with Stage(folder) as stage:
            print("Servers, relays and workers run; it takes 9 minutes", flush=True)
            play.perform(stage, lambda what: print(what, flush=True))
            end = time()
            return record(stage.prometheus, panels, end - play.SECONDS, end)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
