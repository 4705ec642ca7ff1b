"""The command `check`: reads, lists, and with --fix writes."""

import argparse
import contextlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from celery_outbox.check import edits, report, walk
from celery_outbox.check.finding import Edit, Finding, Unread
from celery_outbox.check.index import Index, Locked
from celery_outbox.check.source import Source, find, read

DESCRIPTION: Final = (
    "List each send of Celery (and of Django's tasks) below PATH, and what will become of it with"
    " celery-outbox. Sources are read; nothing of them is imported or run."
)
EXIT_CODES: Final = "Exit codes: 0 nothing to look at, 1 something to look at, 2 wrong usage."
NOT_YET: Final = (
    "Nothing below PATH imports celery_outbox. Until the app is an OutboxCelery, or install(app)"
    " has changed it, a send that does not wait for the commit goes out before it."
)
#: How deeply Python may call itself: each level of an expression takes up to three calls.
DEPTH: Final = 10_000


@dataclass(frozen=True)
class Seen:
    """What one reading of a code base has brought."""

    sources: Sequence[Source]
    unread: Sequence[Unread]
    found: Sequence[Finding]
    atomic_requests: str | None
    outbox: bool
    locked: Sequence[Locked]

    def changes(self) -> dict[str, list[Edit]]:
        """Return the mechanical changes of each file."""
        changes: dict[str, list[Edit]] = defaultdict(list)
        for finding in self.found:
            if finding.edit:
                changes[finding.path].append(finding.edit)
        return changes


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "check", help="what will become of each send", description=DESCRIPTION, epilog=EXIT_CODES
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="a folder, or a file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--fix", action="store_true", help="write the mechanical changes, which else are only shown"
    )
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Carry it out; return the exit code."""
    root: Path = options.path
    if not root.exists():
        options.parser.error(f"there is no {root}")
    seen = look(root)
    changes = seen.changes()
    left: list[Unread] = []
    if options.fix:
        left = _write(seen, changes)
    shown = _diffs(seen, changes, without={file.path for file in left})
    before, seen = seen, look(root) if options.fix and changes else seen
    unread = [*seen.unread, *left]
    if options.json:
        print(report.document(seen.found, unread, seen.atomic_requests))
    else:
        if shown:
            print(f"{'Changed:' if options.fix else 'What --fix would change:'}\n{shown}")
        print(report.listing(seen.found, unread, seen.atomic_requests), end="")
    if changes and not before.outbox:
        print(NOT_YET, file=sys.stderr)
    return 1 if unread or any(not finding.settled for finding in seen.found) else 0


def look(root: Path) -> Seen:
    """Read everything."""
    return look_at(read(path, root) for path in find(root))


def look_at(read_files: Iterable[Source | Unread]) -> Seen:
    """Look at files that were read."""
    files = list(read_files)
    sources = [file for file in files if isinstance(file, Source)]
    unread = [file for file in files if isinstance(file, Unread)]
    index = Index(sources)
    found: list[Finding] = []
    with _deep():
        for source in sources:
            try:
                found += walk.findings(source, index)
            except RecursionError:
                unread.append(Unread(source.shown, "cannot be read: it is nested too deeply"))
    return Seen(sources, unread, found, index.atomic_requests, index.outbox, index.locked)


@contextlib.contextmanager
def _deep() -> Iterator[None]:
    """Let sums of a thousand terms and long chains of `elif` be walked through."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEPTH))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def _write(seen: Seen, changes: Mapping[str, Sequence[Edit]]) -> list[Unread]:
    """Write the changes; return what was left alone."""
    written = [
        edits.write(source, changes[source.shown])
        for source in seen.sources
        if source.shown in changes
    ]
    return [file for file in written if file]


def _diffs(seen: Seen, changes: Mapping[str, Sequence[Edit]], without: set[str]) -> str:
    """Return the changes as a diff."""
    return "".join(
        edits.diff(source, changes[source.shown])
        for source in seen.sources
        if source.shown in changes and source.shown not in without
    )
