"""The ids of many tasks, sixteen bytes each: as text they would take six times as much."""

from collections.abc import Sequence
from typing import Any, overload
from uuid import UUID

SIZE = 16


class TaskIds(Sequence[str]):
    """The ids of tasks in the order they were sent in, made into text as they are asked for."""

    def __init__(self) -> None:
        self._packed = bytearray()
        #: By position, what is no id of Celery's own making: Celery's result of the send.
        self._results: dict[int, Any] = {}

    def add(self, task_id: str) -> None:
        """Add the id of a task that was sent, which is a UUID as Celery writes it."""
        self._packed += bytes.fromhex(task_id.replace("-", ""))

    def add_result(self, result: Any) -> None:
        """Add a task by Celery's result, whose id may change yet, as that of a dropped one does."""
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
        if (result := self._results.get(position)) is not None:
            return str(result.id)
        return str(UUID(bytes=bytes(self._packed[position * SIZE : (position + 1) * SIZE])))

    def __repr__(self) -> str:
        return f"<{len(self)} task ids>"
