"""The committed dashboard is the generated one, and Grafana can show it without surprises."""

from itertools import combinations
from typing import Any

import pytest

from grafana.__main__ import PATH
from grafana.dashboard import as_json
from outbox_relay.observe.effects import EVERY
from tests.deploy.board import dashboard, panels

COLUMNS = 24


def test_what_is_committed_is_what_is_generated() -> None:
    """After a change: make dashboard."""
    assert PATH.read_text() == as_json()


def test_ids_are_unique() -> None:
    """Grafana mixes panels up otherwise, and the SDK leaves ids out."""
    ids = [panel["id"] for panel in dashboard()["panels"]]

    assert len(ids) == len(set(ids))
    assert all(ids)


def test_nothing_overlaps_or_sticks_out() -> None:
    """Every panel lies within the grid, and no two share a cell."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]

    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    assert [pair for pair in combinations(places, 2) if overlap(*pair)] == []


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two rectangles share a cell."""
    return all(
        one[start] < other[start] + other[length] and other[start] < one[start] + one[length]
        for start, length in (("x", "w"), ("y", "h"))
    )


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    """Title, description, unit; and queries of the data source that the reader chose."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for asking in (panel, *panel["targets"]):
        assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(references) == len(set(references))


def test_the_variables_are_there() -> None:
    """One chooses the Prometheus, one the relays, one the outboxes of those that serve many."""
    variables = {each["name"]: each for each in dashboard()["templating"]["list"]}

    assert set(variables) == {"datasource", "job", "outbox"}
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["job"]["query"] == "label_values(outbox_build_info, job)"
    assert variables["outbox"]["allValue"] == ".*"  # also of a relay that has no such label
    assert variables["outbox"]["current"]["value"] == "$__all"


def test_a_number_has_room_for_its_curve() -> None:
    """Grafana leaves the curve out of a panel that is lower."""
    numbers = [panel for panel in panels() if panel["type"] == "stat"]

    assert {panel["options"]["graphMode"] for panel in numbers} == {"area"}
    assert min(panel["gridPos"]["h"] for panel in numbers) >= 5


def test_what_is_counted_every_half_minute_is_asked_for_no_more_often() -> None:
    """A rate over less than that has gaps, where Prometheus scrapes every five seconds."""
    (panel,) = (panel for panel in panels() if panel["title"] == "Execution time")

    assert {target["interval"] for target in panel["targets"]} == {f"{EVERY:g}s"}


@pytest.mark.parametrize("title", ["Refused by reason", "Missing", "In flight"])
def test_a_legend_names_only_what_there_was(title: str) -> None:
    """One of sixteen reasons would be out of sight below the others, which are all at nought."""
    (panel,) = (panel for panel in panels() if panel["title"] == title)
    (override,) = panel["fieldConfig"]["overrides"]

    assert override["matcher"] == {
        "id": "byValue",
        "options": {"reducer": "max", "op": "lte", "value": 0},
    }
    (hidden,) = override["properties"]
    assert hidden["id"] == "custom.hideFrom"
    assert hidden["value"] == {"legend": True, "tooltip": True, "viz": False}


def test_every_row_has_panels() -> None:
    """And a title."""
    kinds = [panel["type"] for panel in dashboard()["panels"]]

    assert kinds[0] == "row"
    assert "rowrow" not in "".join(kinds)
    assert kinds[-1] != "row"
    assert all(panel["title"] for panel in dashboard()["panels"])
