"""Django's tasks need Django 6.0: `make test-django-tasks` has environments with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django  # type: ignore[import-untyped]  # Django ships no types
import pytest
from celery import _state
from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types
from django.test import override_settings  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox import OutboxCelery

BACKEND = "celery_outbox.django.tasks.OutboxBackend"
TASKS = {"default": {"BACKEND": BACKEND, "QUEUES": ["default", "mail"]}}

if not settings.configured:  # tasks look at TASKS as they are made, when they are collected
    settings.configure()
    django.setup()


def pytest_ignore_collect() -> bool | None:
    """Leave them out where Django is older, as in the environment of `make test`."""
    return True if django.VERSION < (6, 0) else None


@pytest.fixture
def app(django_database: str, tmp_path: Path) -> Iterator[Any]:
    """The project's Celery app, whose results are files."""
    state: Any = _state
    current, default = state._tls.current_app, state.default_app
    app = OutboxCelery("shop", broker="amqp://127.0.0.1:1//", backend=f"file://{tmp_path}")
    app.set_default()
    with override_settings(TASKS=TASKS):
        yield app
    app.close()
    state._tls.current_app, state.default_app = current, default
