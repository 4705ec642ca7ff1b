"""Publishes the rows of a Postgres outbox; marks one sent once its broker has confirmed it."""

from typing import TYPE_CHECKING

__version__: str

if not TYPE_CHECKING:  # else every name would count as one of this module's

    def __getattr__(name: str) -> str:
        """Look `__version__` up when asked: that takes longer than all else a health probe does."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        return version("outbox-relay")
