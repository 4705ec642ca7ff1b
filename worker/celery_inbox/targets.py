"""Makes a target of whatever leads to a database: a connection, a session, an alias, a pool's loan.

A connection or session that is handed over is closed when its attempt has ended.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery_inbox.django_target import DjangoTarget
from celery_inbox.errors import UnusableConnection
from celery_inbox.proxies import bare
from celery_inbox.sqlalchemy_target import SQLAlchemyTarget
from celery_inbox.target import Target


@contextmanager
def opened(connect: Callable[[], Any]) -> Iterator[Target]:
    """Call `connect` and close what it returned when the block ends."""
    given = connect()
    if isinstance(given, str):
        yield DjangoTarget(given)
    elif hasattr(type(given), "__enter__") and hasattr(type(given), "__exit__"):
        with given as handle:
            yield adapted(handle)
    else:
        raise unusable(given)


def adapted(handle: Any) -> Target:
    """The target of what the task body will get."""
    connection = bare(handle, "psycopg.Connection")
    if connection is not None:
        from celery_inbox.psycopg_target import PsycopgTarget

        return PsycopgTarget(handle, connection)
    session = bare(handle, "sqlalchemy.orm.Session")
    if session is not None:
        return SQLAlchemyTarget(handle, session)
    raise unusable(handle)


def unusable(given: object) -> UnusableConnection:
    """The refusal of what is no target."""
    return UnusableConnection(
        f"@idempotent(connect): connect() returned {type(given).__qualname__}; it must return a "
        "psycopg.Connection, an SQLAlchemy Session, a context manager that yields one of them "
        "(a pool's connection(), say) or the name of a Django database"
    )
