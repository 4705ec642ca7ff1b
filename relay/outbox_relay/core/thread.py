"""The relay's threads: each logs as whoever made it does, so that a line tells whose outbox it is.

A thread begins without the context variables of the one that starts it; these keep them.
"""

import threading
from contextvars import copy_context
from typing import Any


class ContextThread(threading.Thread):
    """A thread that runs in a copy of the context it was made in."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._made_in = copy_context()

    def run(self) -> None:
        """Run the target in that context."""
        self._made_in.run(super().run)
