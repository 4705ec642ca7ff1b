"""Every check in turn.

What cannot be reached is a finding like any other, and stops only the checks that build on it.
"""

from typing import Final

from outbox_relay.core.finding import Finding, Level, ok, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.errors import RelayError, SchemaError, StoreLost
from outbox_relay.operator import status
from outbox_relay.operator.doctor import (
    activity,
    backlog,
    broker,
    pooling,
    privileges,
    routes,
    schema,
    storage,
    version,
)
from outbox_relay.operator.doctor.causes import DATABASE, remedy
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

NAME: Final = "database"


def examine(settings: Settings) -> list[Finding]:
    """Everything that was found, in the order of the checks."""
    of_database, routes = examine_database(settings)
    found = [ok("settings", "every variable is understood"), *of_database]
    return [*found, *broker.check(settings, routes)]


def examine_database(settings: Settings) -> tuple[list[Finding], list[Route]]:
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
            found += version.check(session)
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
    return level(NAME, f"not everything was checked: {error}", "fix that and ask again")
