"""The command: every check in turn, one report, exit 1 on a problem.

What cannot be reached is a finding like any other, and stops only the checks that build on it.
"""

from argparse import ArgumentParser, Namespace
from typing import Final

from outbox_relay.commands import status
from outbox_relay.commands.command import Command
from outbox_relay.commands.doctor import (
    activity,
    backlog,
    broker,
    pooling,
    privileges,
    report,
    routes,
    schema,
    storage,
)
from outbox_relay.commands.doctor.causes import DATABASE, remedy
from outbox_relay.commands.doctor.finding import Finding, Level, ok, problem, warn
from outbox_relay.commands.flags import BROKER as BROKER_FLAGS
from outbox_relay.commands.flags import DATABASE as DATABASE_FLAGS
from outbox_relay.commands.session import Session
from outbox_relay.errors import RelayError, SchemaError, StoreLost
from outbox_relay.settings import Settings

NAME: Final = "database"


def command() -> Command:
    """The command."""
    return Command(
        "doctor",
        "what is wrong, and what to do about it",
        _doctor,
        _arguments,
        (*DATABASE_FLAGS, *BROKER_FLAGS),
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def _doctor(arguments: Namespace, settings: Settings) -> int:
    found = [ok("settings", "every variable is understood")]
    of_database, sample = examine_database(settings)
    found += of_database
    found += broker.check(settings, sample)
    report.show(found, as_json=arguments.json)
    return 1 if any(finding.level is Level.PROBLEM for finding in found) else 0


def examine_database(settings: Settings) -> tuple[list[Finding], list[routes.Route]]:
    """Findings on the database, and where its messages go."""
    try:
        session = Session.open(settings)
    except StoreLost as error:
        advice = remedy(DATABASE, str(error), "OUTBOX_DATABASE_URL")
        return [problem(NAME, str(error), advice)], []
    found: list[Finding] = []
    with session:
        info = session.connection.info
        found.append(ok(NAME, f"{info.dbname} at {info.host}:{info.port} as {info.user}"))
        try:
            found += pooling.check(session, settings)
            found += activity.check_clock(session)
            found += activity.check_transactions(session)
            seen = schema.check(session)
            found += seen.findings
            if not seen.usable:
                return found, []
            rights = privileges.check(session)
            found += rights
            if any(each.level is Level.PROBLEM for each in rights):
                return found, []
            found += storage.check(session)
            found += backlog.check(session, status.read(session))
            return found, routes.sample(session)
        except (StoreLost, SchemaError) as error:
            found.append(_interrupted(error))
            return found, []


def _interrupted(error: RelayError) -> Finding:
    level = problem if isinstance(error, SchemaError) else warn
    return level(NAME, f"not everything was checked: {error}", "mend that and ask again")
