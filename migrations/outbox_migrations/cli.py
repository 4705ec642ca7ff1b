"""`outbox-migrate`: up, down, status, sql, grant and rebuild, for people and for deployments.

`--schemas 'tenant_*'` does it for the outbox of every schema so named, several at a time.

Exit codes: 0 done, 1 failed or not up to date, 2 wrong usage or settings.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from outbox_migrations import commands, fleet
from outbox_migrations.errors import InvalidSetting, MigrationError
from outbox_migrations.grants import grant

COMMANDS: Final = {
    "up": "apply what is missing; deployments that start at once take turns",
    "status": "show the version that is there; exit code 1 if it is not the newest",
    "sql": "print the migrations, to be reviewed and applied by hand",
    "grant": "create the roles, each with the least rights",
    "rebuild": "replace a schema from before the first release; no message is lost",
    "down": "delete the schema, with every message in it",
}
#: What `--schemas` is for.
FOR_MANY: Final = ("up", "status", "grant")
#: Each is a process here and a session there.
MAX_JOBS: Final = 64


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; errors are one sentence on stderr, never a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except InvalidSetting as error:
        print(f"outbox-migrate: {error}", file=sys.stderr)
        return 2
    except MigrationError as error:
        print(f"outbox-migrate: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="outbox-migrate",
        description="Makes the Postgres tables of outbox and inbox, and keeps them current.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:<10}{what}" for name, what in COMMANDS.items()),
                "",
                "Exit codes: 0 done, 1 failed or not up to date, 2 wrong usage or settings.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"outbox-migrate {version('outbox-migrations')}"
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument(
        "component",
        nargs="?",
        choices=["outbox", "inbox", "both"],
        default="both",
        help="which of the two schemas (both)",
    )
    parser.add_argument("--database-url", help="libpq URL or conninfo (OUTBOX_DATABASE_URL)")
    parser.add_argument(
        "--database-url-file", help="a file that holds it (OUTBOX_DATABASE_URL_FILE)"
    )
    parser.add_argument(
        "--schema",
        default=os.environ.get("OUTBOX_SCHEMA") or "outbox",
        help="Postgres schema of the outbox (OUTBOX_SCHEMA, default: outbox)",
    )
    parser.add_argument(
        "--schemas",
        metavar="PATTERN",
        help="up, status, grant: the outbox of every schema that is there and so named: 'tenant_*'",
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        default=fleet.JOBS,
        metavar="N",
        help=f"up --schemas: how many at a time ({fleet.JOBS})",
    )
    parser.add_argument("--yes", action="store_true", help="down: do not ask")
    return parser


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_JOBS}")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    component = arguments.component
    if arguments.schemas is not None and arguments.command not in FOR_MANY:
        raise InvalidSetting(f"{arguments.command} is for one --schema, not for --schemas")
    if arguments.command == "sql":
        print(commands.sql(arguments.schema, component))
        return 0
    url = _database_url(arguments)
    if arguments.schemas is None or component == "inbox":
        return _one(arguments, url, component)
    inbox = _one(arguments, url, "inbox") if component == "both" else 0
    return max(inbox, _many(arguments, url))


def _one(arguments: argparse.Namespace, url: str, component: commands.Which) -> int:
    """One command for one outbox, the inbox, or both."""
    schema = arguments.schema
    if arguments.command == "up":
        commands.upgrade(url, schema, component)
    elif arguments.command == "down":
        if not arguments.yes and not _agreed(component):
            return 1
        commands.downgrade(url, schema, component)
    elif arguments.command == "rebuild":
        commands.rebuild(url, schema, component)
    elif arguments.command == "grant":
        print("granted: " + ", ".join(grant(url, schema, component)))
        return 0
    return _report(
        commands.status(url, schema, component), expect_current=arguments.command != "down"
    )


def _many(arguments: argparse.Namespace, url: str) -> int:
    """One command for the outboxes of many schemas; a line for each, what failed on stderr."""
    schemas = fleet.matching(url, arguments.schemas)
    outcomes: Iterator[fleet.Outcome]
    if arguments.command == "up":
        outcomes = fleet.upgrade_all(url, schemas, arguments.jobs)
    elif arguments.command == "grant":
        outcomes = fleet.each(schemas, lambda name: grant(url, name, "outbox"))
    else:
        outcomes = (fleet.Outcome(name, None) for name in schemas)
    return max(_told(url, outcome) for outcome in outcomes)


def _told(url: str, outcome: fleet.Outcome) -> int:
    """Say what became of one schema; its exit code."""
    try:
        if outcome.error is not None:
            raise outcome.error
        return _report(commands.status(url, outcome.schema, "outbox"), expect_current=True)
    except MigrationError as error:
        print(f"outbox-migrate: {outcome.schema}: {error}", file=sys.stderr)
        return 1


def _database_url(arguments: argparse.Namespace) -> str:
    """What the flags give, else the environment: the URL, or the file that holds it, not both."""
    url, path, name = arguments.database_url, arguments.database_url_file, "--database-url"
    if not (url or path):
        name = "OUTBOX_DATABASE_URL"
        url, path = os.environ.get(name), os.environ.get(f"{name}_FILE")
    file = "--database-url-file" if name.startswith("--") else f"{name}_FILE"
    if url and path:
        raise InvalidSetting(f"{name} and {file} are both set: keep one")
    if not (url or path):
        raise InvalidSetting("set OUTBOX_DATABASE_URL, or give --database-url")
    try:
        return str(url or Path(path).read_text().strip())
    except OSError as error:
        raise InvalidSetting(f"{file} cannot be read: {error}") from error


def _agreed(component: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidSetting("down deletes every message, sent or not: confirm with --yes")
    which = "the outbox and the inbox" if component == "both" else f"the {component}"
    return input(f"Delete {which} with everything in it? [y/N] ").strip().lower() == "y"


def _report(statuses: list[commands.Status], *, expect_current: bool) -> int:
    for each in statuses:
        version = each.found or "not migrated"
        note = "" if each.current else f" (newest: {each.newest})"
        print(f"{each.component.name} in schema {each.component.schema}: {version}{note}")
    return 1 if expect_current and not all(each.current for each in statuses) else 0
