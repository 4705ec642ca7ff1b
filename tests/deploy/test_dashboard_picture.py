"""The picture of the dashboard: what it asks Prometheus for, what it needs, and that it is whole.

Nothing is drawn here: that takes Node, a Chromium and nine minutes (make dashboard-picture).
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dashboard_picture.bundle import WEB
from dashboard_picture.needs import BROWSERS, ProgramMissing, Programs
from dashboard_picture.picture import WIDTH
from dashboard_picture.recording import CannotDraw, filled, legend, panels_of, record
from grafana.__main__ import PATH
from tests.deploy.board import ROOT, queries


class Source:
    """Answers every question with one series, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, path: str, parameters: Mapping[str, str | float]) -> Any:
        """Two points; the second is no number."""
        assert path == "query_range"
        self.asked.append(str(parameters["query"]))
        begin = parameters["start"]
        return {
            "result": [
                {"metric": {"instance": "relay-1"}, "values": [[begin, "2.5"], [begin, "NaN"]]}
            ]
        }


def test_every_panel_of_the_dashboard_can_be_drawn() -> None:
    """A kind of panel that the page knows nothing of is refused before minutes of play."""
    assert panels_of(PATH)


def test_a_kind_that_is_not_known_is_named(tmp_path: Path) -> None:
    """With its title, and where to add it."""
    file = tmp_path / "board.json"
    file.write_text(json.dumps({"panels": [{"type": "heatmap", "title": "Delays"}]}))

    with pytest.raises(CannotDraw, match=r"Delays: .*web draws no heatmap"):
        panels_of(file)


def test_every_query_is_asked_with_its_variables_filled_in() -> None:
    """Of each panel, and of nothing else."""
    source = Source()

    recording = record(source, panels_of(PATH), 0.0, 60.0)

    assert len(source.asked) == len(list(queries()))
    assert "$" not in "".join(source.asked)
    rows = {str(panel["id"]) for panel in recording["panels"] if panel["type"] == "row"}
    assert {name for name, series in recording["series"].items() if not series} == rows


def test_what_is_no_number_is_a_gap() -> None:
    """JSON has no NaN, and a curve shows nothing there."""
    panel = {"id": 1, "targets": [{"expr": "up", "legendFormat": "{{instance}}"}]}

    recording = record(Source(), [panel], 0.0, 60.0)

    assert recording["series"] == {
        "1": [{"name": "relay-1", "times": [0.0, 0.0], "values": [2.5, None]}]
    }


def test_legends_are_filled_as_grafana_does() -> None:
    """A label that a series lacks leaves nothing, as the exchange of messages to queues."""
    assert legend("{{exchange}} {{ routing_key }}", {"routing_key": "mail"}) == "mail"
    assert legend("pending", {}) == "pending"


def test_an_unknown_variable_is_an_error() -> None:
    """A query with a hole in it would draw an empty panel."""
    with pytest.raises(KeyError, match="tenant"):
        filled('up{tenant="$tenant"}', 5)


def test_a_query_with_a_step_of_its_own_is_asked_with_it() -> None:
    """And has its rates taken over four times that, as Grafana does."""
    source = Source()
    query = "rate(a[$__rate_interval])"
    target = {"expr": query, "legendFormat": "", "interval": "30s"}

    record(source, [{"id": 1, "targets": [target, {**target, "interval": "1s"}]}], 0.0, 60.0)

    assert source.asked == ["rate(a[120s])", "rate(a[20s])"]


@pytest.mark.parametrize(
    ("there", "said"),
    [({"node", "npm"}, "chromium"), ({"chromium"}, "nodejs"), (set(), "nodejs.* and .*chromium")],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, there: set[str], said: str
) -> None:
    """In one sentence, with the way to get it."""
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)

    with pytest.raises(ProgramMissing, match=said):
        Programs.found()


@pytest.mark.parametrize("browser", BROWSERS)
def test_any_chromium_will_do(monkeypatch: pytest.MonkeyPatch, browser: str) -> None:
    """Under whatever name a distribution has it."""
    there = {"node", "npm", browser}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)

    assert Programs.found().browser == browser


def test_the_packages_are_pinned() -> None:
    """Each to one version, and the lock file has the same, with hashes and no address."""
    wanted = json.loads((WEB / "package.json").read_text())["dependencies"]
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]

    assert locked[""]["dependencies"] == wanted
    for name, version in wanted.items():
        assert locked[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in each for path, each in locked.items() if path)
    assert not any("resolved" in each for each in locked.values())


def test_the_picture_is_of_this_dashboard() -> None:
    """As tall as its rows, in Grafana's colours. After a change: make dashboard-picture."""
    rows = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels_of(PATH))

    with Image.open(ROOT / "docs/dashboard.png") as picture:
        assert picture.size == (WIDTH, 24 + rows * 38 - 8)
        assert picture.mode == "P"  # a third of the size
        colours = picture.convert("RGB").getcolors()
    assert colours is not None
    assert max(colours)[1] == (0x18, 0x1B, 0x1F)
