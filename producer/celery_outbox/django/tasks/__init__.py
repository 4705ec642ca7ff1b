"""Django's own tasks (`django.tasks`, Django 6.0 and newer) through the outbox, run by Celery.

Workers import this module whatever their Django is, as `autodiscover_tasks()` does it for every app
that is installed. So an older Django is an error only for who asks for the backend.
"""

from importlib import import_module
from typing import Any

import django  # type: ignore[import-untyped]  # Django ships no types

__all__ = ["OutboxBackend"]


def __getattr__(name: str) -> Any:
    """Return the backend where Django has tasks."""
    if name != "OutboxBackend":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if django.VERSION < (6, 0):
        raise ImportError(
            "celery_outbox.django.tasks.OutboxBackend needs Django 6.0 or newer, which brings"
            f" django.tasks; this is Django {django.__version__}. Upgrade Django, or send Celery"
            " tasks (docs/how-to/django.md)"
        )
    return import_module("celery_outbox.django.tasks.backend").OutboxBackend


if django.VERSION >= (6, 0):
    import_module("celery_outbox.django.tasks.serving")  # and with it the task that runs the others
