"""Makes one way to connect of all that `@idempotent` may be given.

A database URL, whose connections are kept; a pool of psycopg_pool; an engine or a session factory
of SQLAlchemy; the alias of a Django database; or a function that connects.
"""

import inspect
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any

from celery_inbox.errors import UnusableConnection

Connect = Callable[[], Any]

#: Engines whose pooled connections a forked child must not use: the parent has them.
_engines: "weakref.WeakSet[Any]" = weakref.WeakSet()


def connect_by(source: Any) -> Connect:
    """What to call for a connection, a session or an alias. Raises for what cannot be one."""
    if isinstance(source, str):
        return _by_name(source)
    if _is_a(source, "sqlalchemy", "Engine"):
        return _by_engine(source)
    if _is_a(source, "psycopg_pool", "ConnectionPool"):
        return _by_pool(source)
    if not callable(source):
        raise UnusableConnection(
            f"@idempotent was given {_named(source)}: give it a database URL, a ConnectionPool of "
            "psycopg_pool, an Engine or sessionmaker of SQLAlchemy, the alias of a database of "
            "Django's, or a function that connects. None of them may be an asynchronous one"
        )
    _refuse_a_body(source)
    return source  # type: ignore[no-any-return]  # callable, as was just asked


def _by_name(name: str) -> Connect:
    """A URL or conninfo has one of these signs, which no alias of Django's has."""
    if not ("://" in name or "=" in name):
        return lambda: name
    try:
        from celery_inbox.kept import KeptConnections
    except ImportError as error:
        raise UnusableConnection(
            "@idempotent needs psycopg for a database URL: pip install 'celery-inbox[psycopg]'"
        ) from error
    return KeptConnections(name).connection


def _by_engine(engine: Any) -> Connect:
    from sqlalchemy.orm import Session

    _engines.add(engine)
    return lambda: Session(engine)


def _by_pool(pool: Any) -> Connect:
    process = os.getpid()
    forked = [False]

    def connect() -> Any:
        if os.getpid() != process and not forked[0]:
            raise UnusableConnection(
                "@idempotent's pool was opened before this worker process was forked, and its "
                "connections belong to the parent. Open it in the signal worker_process_init "
                "(ConnectionPool(..., open=False)), or give @idempotent the database URL"
            )
        if pool.closed:
            raise UnusableConnection(
                "@idempotent's pool is not open: open it before the first task, in the signal "
                "worker_process_init, or give @idempotent the database URL"
            )
        return pool.connection()

    def after_fork() -> None:
        forked[0] = pool.closed  # opened later, and so by this process

    os.register_at_fork(after_in_child=after_fork)
    return connect


def _dispose_engines() -> None:
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_dispose_engines)


def _is_a(value: object, module: str, name: str) -> bool:
    """isinstance, for a library that is imported only where an application uses it."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _named(value: object) -> str:
    kind = type(value)
    return f"an object of {kind.__module__}.{kind.__qualname__}"


def _refuse_a_body(connect: Callable[..., Any]) -> None:
    """`@idempotent` without a call would take the task's own body for what connects."""
    if not inspect.isfunction(connect):
        return
    try:
        inspect.signature(connect).bind()
    except TypeError as error:
        raise TypeError(
            f"{connect.__qualname__} cannot be called without arguments ({error}): write "
            "@idempotent(connect), where connect() returns the connection to work on"
        ) from error
