"""Django's system checks say what would keep tasks from being stored, or from being run."""

from typing import Any

import pytest
from celery import Celery
from django.core import checks  # type: ignore[import-untyped]  # Django ships no types
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same
from django.test import override_settings  # type: ignore[import-untyped]  # the same
from django.test.utils import (  # type: ignore[import-untyped]  # the same
    setup_test_environment,
    teardown_test_environment,
)

from servers import Postgres
from tests.django_tasks import work
from tests.django_tasks.conftest import TASKS
from tests.fixtures.django import database_settings, forget

INSTALLED = override_settings(INSTALLED_APPS=["celery_outbox.django"])


def found() -> list[str]:
    """What the checks of the whole project say, by their ids."""
    return [message.id for message in checks.run_checks()]


def test_a_project_as_it_should_be(app: Any) -> None:
    """Nothing is wrong with it."""
    with INSTALLED:
        assert found() == []


def test_without_the_installed_app(app: Any) -> None:
    """Workers might not find the task that runs the others."""
    assert found() == ["celery_outbox.W001"]


def test_without_an_outbox(app: Any) -> None:
    """Where nobody imported the project's app, the current one is plain Celery: refused."""
    with INSTALLED, Celery("plain") as plain:
        plain.set_default()
        assert found() == ["celery_outbox.E001"]
        with pytest.raises(ImproperlyConfigured, match="no Celery app with an outbox"):
            work.add.enqueue(1)


def test_another_database(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None that could have the outbox's tables, or an alias that does not exist."""
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    configured = connections.configure_settings({"default": {}, "lite": sqlite})
    monkeypatch.setitem(connections.settings, "lite", configured["lite"])
    with INSTALLED:
        for alias in ("lite", "nowhere"):
            with override_settings(OUTBOX_DATABASE_ALIAS=alias):
                assert found() == ["celery_outbox.E002"]
        with override_settings(OUTBOX_SCHEMA="Out Box"):
            assert found() == ["celery_outbox.E002"]


def test_unknown_options(app: Any) -> None:
    """A setting that nobody reads is a mistake."""
    options = {"default": {**TASKS["default"], "OPTIONS": {"retries": 3}}}
    with INSTALLED, override_settings(TASKS=options):
        assert found() == ["celery_outbox.E003"]


def test_without_tables(app: Any, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where databases may be asked, one without the outbox is told of."""
    empty = postgres.create_database()
    configured = connections.configure_settings({"default": database_settings(empty)})
    with INSTALLED:
        assert checks.run_checks(databases=["default"]) == []
        forget("default")
        monkeypatch.setitem(connections.settings, "default", configured["default"])
        assert [each.id for each in checks.run_checks(databases=["default"])] == [
            "celery_outbox.W002"
        ]
        forget("default")


def test_a_test_run_is_left_alone(app: Any) -> None:
    """Neither a plain app, nor a database without the outbox, nor options end `manage.py test`."""
    options = {"default": {**TASKS["default"], "OPTIONS": {"retries": 3}}}
    with override_settings(TASKS=options, OUTBOX_DATABASE_ALIAS="nowhere"), Celery("p") as plain:
        plain.set_default()
        assert found() == ["celery_outbox.E003", "celery_outbox.E001", "celery_outbox.W001"]
        setup_test_environment()
        try:
            assert found() == []
        finally:
            teardown_test_environment()
