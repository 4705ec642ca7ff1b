"""The committed dashboard and alerts, as the tests read them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
ALERTS: Final = ROOT / "deploy/prometheus/alerts.yaml"

#: What Grafana puts in for its variables.
VARIABLES: Final = {"__rate_interval": "10s", "job": "outbox-relay", "outbox": ".*"}


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    text = (ROOT / "deploy/grafana/outbox.json").read_text()
    return dict(json.loads(text))


def panels() -> list[dict[str, Any]]:
    """Everything on the dashboard but the titles of its rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str, str]]:
    """Title, expression with the variables filled in, and legend of every query."""
    for panel in panels():
        for target in panel["targets"]:
            expression = re.sub(r"\$(\w+)", lambda m: VARIABLES[m[1]], target["expr"])
            yield panel["title"], expression, target["legendFormat"]


def metrics_in(text: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\boutbox_\w+", text))


def alerts() -> dict[str, str]:
    """The text of every alert, by its name."""
    _, *rules = re.split(r"(?m)^ +- alert: ", ALERTS.read_text())
    return {rule.split("\n", 1)[0]: rule for rule in rules}
