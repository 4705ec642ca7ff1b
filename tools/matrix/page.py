"""The section of docs/compatibility.md that one run of the matrix writes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from matrix.rows import SUITES, Result

BEGIN: Final = "<!-- begin: make test-servers -->\n"
END: Final = "<!-- end: make test-servers -->\n"


def table(results: Iterable[Result]) -> str:
    """Return the table: a line for each version."""
    lines = ["| | passed | failed | skipped | which failed |\n", "|---|---|---|---|---|\n"]
    for result in results:
        if result.missing:
            lines.append(f"| {result.name} | | | | not tried: {result.missing} |\n")
            continue
        failures = ", ".join(f"`{failure}`" for failure in result.failures)
        numbers = f"{result.passed:,} | {result.failed} | {result.skipped}"
        lines.append(f"| {result.name} | {numbers} | {failures or 'none'} |\n")
    return "".join(lines)


def suites() -> str:
    """Return which tests each kind of server is tried with."""
    return "".join(
        f"* {kind}: {', '.join(f'`{path}`' for path in paths)}\n" for kind, paths in SUITES.items()
    )


def write(page: Path, results: Iterable[Result]) -> None:
    """Put table and suites in place of those of the run before."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}{table(results)}\n{suites()}{END}{after}")
