"""`make bench-beside COMMIT=…`: an earlier commit's bench and this checkout's, in turns.

Shows what a change costs. Each side is measured by the bench of its own commit, so compare only
what both measure in the same way; what one of them does not have is not shown.
"""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

from bench.compare.turns import HERE, Rounds, Side, compare
from bench.report.figures import UNITS

FOLDER: Final = HERE / ".bench" / "beside"
#: The plain case: a relay that drains, one that follows, and a producer.
PLAIN: Final = ("1 classic queue, 1 process", "1 quorum queue, 1 process", "Redis, 1 process")
#: Says how busy others were, not what was measured.
_ASIDE: Final = ("others", "silence")


def main() -> int:
    """Compare what is asked for."""
    parser = ArgumentParser(prog="make bench-beside", description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="TEXT", default=PLAIN)
    told = parser.parse_args()
    return compare(_sides(told.commit), told.only, told.rounds, table)


def _sides(commit: str) -> Iterator[Side]:
    yield Side(commit, FOLDER / "before", _checkout(commit))
    yield Side("here", FOLDER / "here", HERE)


def table(rounds: Rounds) -> Iterator[str]:
    """Medians of both, and the median of the ratios within rounds, lowest and highest beside it."""
    before, here = rounds
    yield f"| | {before} | {here} | {here} against {before} |"
    yield "|---|---|---|---|"
    pairs = list(zip(rounds[before], rounds[here], strict=True))
    for name in dict.fromkeys(name for then, _ in pairs for name in then):
        experiment, _, what = name.rpartition("/")
        both = [(then[name], now[name]) for then, now in pairs if name in then and name in now]
        if what in _ASIDE or not both:
            continue
        ratios = sorted(now / then for then, now in both if then)
        unit = UNITS[what]
        cells = (
            f"{experiment}, {what}",
            *(f"{median(side):,.1f} {unit}" for side in zip(*both, strict=True)),
            f"{median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "-",
        )
        yield f"| {' | '.join(cells)} |"


def _checkout(commit: str) -> Path:
    """A work tree of the commit with its own environment, made once."""
    full = _git("rev-parse", "--verify", f"{commit}^{{commit}}")
    folder = FOLDER / full[:12]
    if not folder.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--quiet", "--detach", str(folder), full)
    subprocess.run(["make", "--silent", "setup"], cwd=folder, stdout=sys.stderr, check=True)
    return folder


def _git(*argv: str) -> str:
    return subprocess.run(
        ["git", *argv], cwd=HERE, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
