"""Writes the table of docs/scaling.md: what `make bench` measured, as messages a day.

After a new measurement: `make scaling`.
"""

import re
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PAGE: Final = DOCS / "scaling.md"

#: What runs, and the experiment of docs/performance.md that measured it.
STEPS: Final = {
    "one relay, one classic queue": "1 classic queue, 1 process",
    "one relay, one quorum queue": "1 quorum queue, 1 process",
    "two relays, one quorum queue": "1 quorum queue, 2 processes",
    "one relay, Redis": "Redis, 1 process",
    "two relays, Redis": "Redis, 2 processes",
    "one relay, a broker that costs nothing": "stub broker, 1 process",
    "two relays, a broker that costs nothing": "stub broker, 2 processes",
}
DAY_SECONDS: Final = 86_400
#: The busiest moment against the average of the day.
PEAK: Final = 4

_TABLE: Final = re.compile(
    r"(?<=<!-- computed -->\n\n).*?(?=\n<!-- end of computed -->)", re.DOTALL
)
_HEAD: Final = "| what runs | messages a second, at most | messages a day |\n|---|---|---|\n"


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(as_page())


def as_page() -> str:
    """The page with its table as it should be."""
    measured = (DOCS / "performance.md").read_text()
    rows = [row(what, rate(experiment, measured)) for what, experiment in STEPS.items()]
    return _TABLE.sub(_HEAD + "".join(rows), PAGE.read_text())


def rate(experiment: str, measured: str) -> int:
    """Messages a second, the median of the rounds."""
    found = re.search(rf"(?m)^\| {re.escape(experiment)} \| ([\d,]+) \|", measured)
    if found is None:
        raise LookupError(f"docs/performance.md has no experiment {experiment!r}")
    return int(found[1].replace(",", ""))


def row(what: str, per_second: int) -> str:
    """A line of the table."""
    millions = per_second * DAY_SECONDS / PEAK / 1e6
    return f"| {what} | {per_second:,} | {millions:,.0f} million |\n"


if __name__ == "__main__":
    main()
