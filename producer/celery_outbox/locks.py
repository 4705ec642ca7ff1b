"""Warns of packages that take a lock in Redis before they send: no rollback gives it back."""

import logging
from typing import Any, Final

logger = logging.getLogger(__name__)

#: Packages whose task classes do so, by the module of the class.
LOCKING: Final = frozenset({"celery_singleton", "celery_once"})


class LockWarnings:
    """Warns once of each kind of task."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._seen: set[type] = {object}

    def warn(self, name: str) -> None:
        """Warn if the task of that name, which joins a transaction, takes such a lock."""
        kind = type(self._app._tasks.get(name))
        if kind in self._seen:
            return
        self._seen.add(kind)
        packages = {(base.__module__ or "").partition(".")[0] for base in kind.__mro__}
        if locking := sorted(packages & LOCKING):
            logger.warning(
                "%s is a task of %s, which locks it before it is sent: after a rollback it stays"
                " locked, and what is sent next is lost. dedup_key= does the same in the"
                " transaction",
                name,
                locking[0],
            )
