"""The ids of many tasks, sixteen bytes each: as text they would take six times as much."""

import re
from collections.abc import Sequence
from typing import Any, Final, overload
from uuid import UUID

SIZE: Final = 16
#: An id as Celery makes it, and as a UUID is written.
CANONICAL: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")


class TaskIds(Sequence[str]):
    """The ids of tasks in the order they were sent in, made into text as they are asked for."""

    def __init__(self) -> None:
        self._packed = bytearray()
        #: By position, what was returned by a send whose id is not of Celery's own making.
        self._results: dict[int, Any] = {}

    def add(self, task_id: str) -> None:
        """Add the id of a task that was sent, which is a UUID as Celery writes it."""
        self._packed += bytes.fromhex(task_id.replace("-", ""))

    def add_result(self, result: Any, *, final: bool) -> None:
        """Add a task by what its send returned, which is a result of Celery's as a rule.

        Its id may change yet if it is not `final`, as that of a dropped one does.
        """
        task_id = str(getattr(result, "id", ""))
        if final and CANONICAL.fullmatch(task_id):
            self.add(task_id)
            return
        self._results[len(self)] = result
        self._packed += bytes(SIZE)

    def __len__(self) -> int:
        return len(self._packed) // SIZE

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._at(position) for position in range(*index.indices(len(self)))]
        return self._at(range(len(self))[index])

    def _at(self, position: int) -> str:
        if position in self._results:
            return str(getattr(self._results[position], "id", ""))
        return str(UUID(bytes=bytes(self._packed[position * SIZE : (position + 1) * SIZE])))

    def __repr__(self) -> str:
        return f"<{len(self)} task ids>"
