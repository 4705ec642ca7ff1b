"""The outboxes of many schemas of one database, such as one for each tenant.

Each schema is a transaction of its own: what one meets keeps no other from being migrated, and a
run that was interrupted is simply run again. Alembic keeps its state in the module, so several at
a time are processes, not threads.
"""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fnmatch import fnmatchcase
from multiprocessing import get_context
from typing import Final

from sqlalchemy import text

from outbox_migrations.commands import FAILED, upgrade
from outbox_migrations.database import transaction
from outbox_migrations.errors import DatabaseUnreachable, InvalidSetting, MigrationError

#: At once, unless told otherwise: each is a process here and a session there.
JOBS: Final = 4

# Neither Postgres' own nor the inbox, which is one for the whole database.
SCHEMAS: Final = """
SELECT nspname FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'inbox')
ORDER BY nspname
"""


NOT_BEGUN: Final = "not begun, as the database did not answer for another"
KILLED: Final = (
    "a process of this command was killed, for want of memory perhaps; nothing is half done: run it"
    " again, with fewer --jobs"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schema; `error` is None where it is migrated."""

    schema: str
    error: MigrationError | None


def matching(database_url: str, pattern: str) -> list[str]:
    """The schemas of the database that a pattern such as `tenant_*` names, in order.

    Raises InvalidSetting if there are none: nobody wants to migrate nothing.
    """
    with transaction(database_url, FAILED) as connection:
        known = [name for (name,) in connection.execute(text(SCHEMAS))]
    found = [name for name in known if fnmatchcase(name, pattern)]
    if not found:
        raise InvalidSetting(
            f"--schemas {pattern!r} matches none of the {len(known)} schemas of this database:"
            " create each tenant's schema first, and quote the pattern in a shell"
        )
    return found


def upgrade_all(
    database_url: str, schemas: list[str], jobs: int = JOBS
) -> Generator[Outcome, None, None]:
    """Migrate the outbox in each of these schemas, `jobs` at a time; tells of each as it ends.

    Once the database does not answer, those not begun are not tried; the outcome says so. Closed
    before its end, it begins no other.
    """
    pool = ProcessPoolExecutor(min(jobs, len(schemas)), mp_context=get_context("spawn"))
    try:
        running = {pool.submit(upgrade, database_url, name, "outbox"): name for name in schemas}
        for ended in as_completed(running):
            if ended.cancelled():
                yield Outcome(running[ended], DatabaseUnreachable(NOT_BEGUN))
                continue
            error = _error(ended)
            if isinstance(error, DatabaseUnreachable):
                for waiting in running:
                    waiting.cancel()
            yield Outcome(running[ended], error)
    finally:
        pool.shutdown(cancel_futures=True)


def each(schemas: list[str], action: Callable[[str], object]) -> Iterator[Outcome]:
    """Do something quick to one schema after the other; what one meets stops no other."""
    for name in schemas:
        try:
            action(name)
        except MigrationError as error:
            yield Outcome(name, error)
        else:
            yield Outcome(name, None)


def _error(ended: Future[None]) -> MigrationError | None:
    error = ended.exception()
    if isinstance(error, BrokenProcessPool):
        return MigrationError(KILLED)
    if error is None or isinstance(error, MigrationError):
        return error
    raise error
