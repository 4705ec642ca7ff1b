"""What Prometheus answers to each panel of the dashboard, as Grafana would have asked it.

Grafana puts in its variables, asks for a point every few seconds, and names each series by the
panel's legend. Panels of kinds that are not drawn are refused here, before a play of minutes.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict

#: The kinds of panel that web/ draws; a row is a title.
KINDS: Final = frozenset({"row", "stat", "timeseries"})
#: Seconds between two points, as of a data source that is told "Scrape interval: 5s".
STEP: Final = 5
#: What Grafana puts in for the dashboard's variables.
VARIABLES: Final = {"job": "outbox-relay", "outbox": ".*"}


class Series(TypedDict):
    """A curve: its name in the legend, and its points; None where there is no number."""

    name: str
    times: list[float]
    values: list[float | None]


class Recording(TypedDict):
    """All that the page draws."""

    begin: float
    end: float
    panels: list[dict[str, Any]]
    #: By the panel's id.
    series: dict[str, list[Series]]


class Source(Protocol):
    """A Prometheus."""

    def ask(self, path: str, parameters: Mapping[str, str | float]) -> Any:
        """The data of an answer of its HTTP API."""


class CannotDraw(ValueError):
    """The dashboard has something that web/ does not draw yet; the message names it."""


def panels_of(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard's JSON; CannotDraw where one is of a kind that is not known."""
    panels: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    for panel in panels:
        if panel["type"] not in KINDS:
            raise CannotDraw(
                f"{panel['title']}: tools/dashboard_picture/web draws no {panel['type']} yet"
            )
    return panels


def record(source: Source, panels: Sequence[dict[str, Any]], begin: float, end: float) -> Recording:
    """Ask for everything on the dashboard between two times."""
    series = {
        str(panel["id"]): [
            found
            for target in panel.get("targets", ())
            for found in _ask(source, target, begin, end)
        ]
        for panel in panels
    }
    return {"begin": begin, "end": end, "panels": list(panels), "series": series}


def filled(expression: str, step: int) -> str:
    """An expression with Grafana's variables put in; KeyError for one that is not known."""
    variables = {**VARIABLES, "__rate_interval": f"{4 * step}s"}  # as Grafana has it for a step
    return re.sub(r"\$(\w+)", lambda match: variables[match[1]], expression)


def legend(pattern: str, labels: Mapping[str, str]) -> str:
    """The name of a series: its labels put into the legend, nothing where it lacks one."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match[1], ""), pattern).strip()


def _ask(source: Source, target: Mapping[str, str], begin: float, end: float) -> list[Series]:
    step = max(STEP, int(target.get("interval", "0s").removesuffix("s")))
    query = filled(target["expr"], step)
    answer = source.ask(
        "query_range", {"query": query, "start": begin, "end": end, "step": float(step)}
    )
    return [
        {
            "name": legend(target["legendFormat"], each["metric"]),
            "times": [float(time) for time, _ in each["values"]],
            "values": [_number(value) for _, value in each["values"]],
        }
        for each in answer["result"]
    ]


def _number(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None
