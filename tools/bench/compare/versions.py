"""`make bench-servers`: the same drains on the oldest and the newest RabbitMQ, in turns.

One run of the bench has one broker, so each turn is a run. The table is the one in
docs/performance.md.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from statistics import median
from typing import Final

from bench.compare.turns import HERE, Rounds, Side, compare

VERSIONS: Final = ("3.10", "4.3")
KINDS: Final = ("1 classic queue", "1 quorum queue")
#: What is drained, and whether against the limit of the same round.
ROWS: Final = (("limit", False), ("1 process", False), ("1 process", True), ("2 processes", True))
FOLDER: Final = HERE / ".bench" / "servers"


def main() -> int:
    """Compare both."""
    parser = ArgumentParser(prog="make bench-servers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    sides = [
        Side(version, FOLDER / version, HERE, {"RABBITMQ_VERSION": version}) for version in VERSIONS
    ]
    names = [f"{kind}, {what}" for kind in KINDS for what in dict(ROWS)]
    return compare(sides, names, parser.parse_args().rounds, table)


def table(rounds: Rounds) -> Iterator[str]:
    """Medians of the rounds; ratios are taken within a round."""
    yield "| | " + " | ".join(f"RabbitMQ {version}" for version in rounds) + " |"
    yield "|---|" + "---|" * len(rounds)
    for kind in KINDS:
        for what, to_the_limit in ROWS:
            name = f"{kind}, {what}"
            cells = [_cell(each, name, kind, to_the_limit) for each in rounds.values()]
            against = " against the limit" if to_the_limit else ""
            yield f"| {name}{against} | {' | '.join(cells)} |"


def _cell(rounds: list[dict[str, float]], name: str, kind: str, to_the_limit: bool) -> str:
    rate, limit = f"{name}/rate", f"{kind}, limit/rate"
    if to_the_limit:
        ratios = [r[rate] / r[limit] for r in rounds if rate in r and r.get(limit)]
        return f"{median(ratios):.2f}" if ratios else "-"
    values = [r[rate] for r in rounds if rate in r]
    return f"{median(values):,.0f}/s" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
