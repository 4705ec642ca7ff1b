"""Results of tasks are kept in memory while a test runs: no Redis has to be there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.backends.cache import CacheBackend
from kombu.utils.functional import LRUCache

from celery_outbox.backend import keep_quiet


@contextmanager
def kept_in_memory(app: Any) -> Iterator[None]:
    """Give the app a result backend of its own, in memory; none where it has none."""
    configured = app.backend_cls or app.conf.result_backend
    if not configured or str(configured).startswith("disabled"):
        yield
        return
    before = app._backend_cache
    app._backend_cache = keep_quiet(_memory(app))
    try:
        yield
    finally:
        app._backend_cache = before


def _memory(app: Any) -> Any:
    backend: Any = CacheBackend(app=app, backend="memory")
    backend.client.cache = LRUCache(limit=100_000)  # not what all others in this process share
    return backend
