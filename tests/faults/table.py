"""Writes docs/faults.md from what was measured last: `python -m tests.faults.table`.

A fault without a figure in the results is named and fails the command: the page shows what was
measured, and nothing else.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Final

from tests.faults import results
from tests.faults.matrix import MATRIX, Fault
from tests.faults.results import Result
from tests.faults.soak import FAULTS

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = CHECKOUT / "docs" / "faults.md"
NOTHING: Final = "\N{EN DASH}"

_HEAD: Final = """\
# Faults

What was done to the whole path, on real servers, and what came of it. `make test-faults` tries all
of it, `make test` what is marked ●. `make faults-page` writes this page from the figures of a run.

Every case compares what a producer remembers of its commits, kept apart from the database, with
what reached the broker, and asserts that

* its fault has really struck (bytes held or dropped, a log's words, an exit code);
* nothing is **lost**: every committed message arrived, or is dead if it should be;
* nothing **unexpected** arrived: of what was rolled back, nothing. A COMMIT of unknown outcome
  counts as committed if its row is there; then its message is, too;
* no healthy message is charged with an attempt: `OUTBOX_MAX_ATTEMPTS=1` makes it dead if it is;
* **duplicates** stay within the window (200 messages, where nothing else is said) of each fault.

*Recovery* is the time from the end of the fault to the next message marked sent, in seconds, the
slowest of the cases. Redis is Valkey. Measured on two cores that others shared.

| # | fault | how | expected | lost | duplicates | recovery | |
|---|---|---|---|---|---|---|---|
"""


def write_page() -> list[int]:
    """Write the page; returns the faults that nothing was measured of."""
    measured: dict[int, list[Result]] = {}
    found = results.read()
    for result in found.values():
        for number in result.faults:
            measured.setdefault(number, []).append(result)
    lines = [_row(fault, measured.get(fault.number, [])) for fault in MATRIX]
    PAGE.write_text(_HEAD + "\n".join(lines) + "\n" + _cases(measured) + _schedules(found))
    return [fault.number for fault in MATRIX if fault.number not in measured]


def _row(fault: Fault, cases: Sequence[Result]) -> str:
    smoke = " ●" if any(case.smoke for case in cases) else ""
    lost = sum(case.lost + case.unexpected for case in cases) if cases else NOTHING
    duplicates = [f"{case.duplicated:,} of {case.allowed:,}" for case in _most(cases)] or [NOTHING]
    recoveries = [case.recovery for case in cases if case.recovery is not None]
    recovery = f"{max(recoveries):.1f}" if recoveries else NOTHING
    files = sorted({case.test.partition("::")[0] for case in cases} | set(fault.elsewhere))
    links = ", ".join(f"[{Path(file).stem.removeprefix('test_')}](../{file})" for file in files)
    cells = (
        f"{fault.number}{smoke}", fault.name, fault.injected, fault.expected,
        lost, duplicates[0], recovery, links,
    )  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _most(cases: Sequence[Result]) -> Sequence[Result]:
    return sorted(cases, key=lambda case: -case.duplicated)[:1]


def _cases(measured: dict[int, list[Result]]) -> str:
    """What some cases have to say beyond the figures."""
    notes = [
        f"* {fault.number}, {_name(case)}: {case.note}."
        for fault in MATRIX
        for case in measured.get(fault.number, [])
        if case.note
    ]
    return "\n## In particular\n\n" + "\n".join(notes) + "\n"


def _schedules(found: Mapping[str, Result]) -> str:
    """What the soak has come to."""
    schedules = [result for name, result in found.items() if name.startswith(results.SOAK)]
    lost = sum(result.lost for result in schedules)
    unexpected = sum(result.unexpected for result in schedules)
    twice = sum(result.duplicated for result in schedules)
    struck = Counter[str]()
    for each in (each for result in schedules for each in result.note.split(", ") if each):
        times, _, name = each.partition(" x ")
        struck[name] += int(times)
    named = ", ".join(f"{name} {times}" for name, times in sorted(struck.items()))
    came = f"{lost} lost, {unexpected} unexpected, {twice:,} sent twice"
    paragraphs = (
        f"`make soak` ran {len(schedules)} schedules of {FAULTS} random faults, one after the "
        "other, while producers went on inserting and two relays were kept alive, on RabbitMQ and "
        f"Valkey by turns: {came}. Each schedule has a seed, which repeats it: "
        "`make soak SOAK_MINUTES=0 SOAK_SEED=n`.",
        f"How often each struck: {named}.",
    )
    return "\n## At random\n\n" + "\n\n".join(fill(each, 100) for each in paragraphs) + "\n"


def _name(case: Result) -> str:
    return case.test.rpartition("::")[2].removeprefix("test_").replace("_", " ")


if __name__ == "__main__":
    if missing := write_page():
        sys.exit(f"nothing was measured of faults {missing}: run make test-faults")
