"""`-p django_suite.plugin`: Django's tests of backends, with ours in place of the two it has."""

import os
from collections.abc import Iterator

import django  # type: ignore[import-untyped]  # Django ships no types
import psycopg
import pytest
from django.conf import settings  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from django.tasks.backends import (  # type: ignore[import-untyped]  # since Django 6.0
    dummy,
    immediate,
)
from django.test import SimpleTestCase  # type: ignore[import-untyped]  # Django ships no types

from celery_outbox import OutboxCelery

DATABASE = {
    "NAME": "dbname",
    "USER": "user",
    "PASSWORD": "password",
    "HOST": "host",
    "PORT": "port",
}


def pytest_configure() -> None:
    """Set Django up on the database of DATABASE_URL, and put ours in place of its backends."""
    parts = psycopg.conninfo.conninfo_to_dict(os.environ["DATABASE_URL"])
    database = {name: str(parts.get(key) or "") for name, key in DATABASE.items()}
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", **database}},
        INSTALLED_APPS=["celery_outbox.django"],
    )
    django.setup()
    OutboxCelery("suite", backend=f"file://{os.environ['RESULTS']}").set_default()
    from django_suite import adapted

    dummy.DummyBackend, immediate.ImmediateBackend = adapted.Recording, adapted.Working
    SimpleTestCase.databases = {"default"}


@pytest.fixture(autouse=True)
def _empty_outbox() -> Iterator[None]:
    from django_suite.adapted import FORGET

    with connections["default"].cursor() as cursor:
        cursor.execute(FORGET)
    yield
    connections.close_all()
