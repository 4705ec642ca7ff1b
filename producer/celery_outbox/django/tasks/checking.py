"""Django's system checks of TASKS: what would keep tasks from being stored, or from being run."""

from typing import Any, Final

from celery import current_app
from django.apps import apps  # type: ignore[import-untyped]  # Django ships no types
from django.core import checks  # type: ignore[import-untyped]  # the same
from django.db import connections  # type: ignore[import-untyped]  # the same

from celery_outbox import settings
from celery_outbox.app import OutboxCelery
from celery_outbox.django.test_runs import left_alone
from celery_outbox.errors import InvalidSetting

NO_APP: Final = "There is no Celery app with an outbox in this process."
APP_HINT: Final = (
    "Make the app an OutboxCelery, and import it in the __init__.py of the project's package, as"
    " Celery's First steps with Django say: then every process has it."
)
ALIAS_HINT: Final = (
    "Name the database that the tasks' data is in as OUTBOX_DATABASE_ALIAS, and have the outbox's"
    " tables there."
)


@left_alone
def check(backend: Any) -> list[checks.CheckMessage]:
    """Return what is wrong. Nothing is asked of a database or a broker."""
    return [*_options(backend), *_app_and_database(), *_installed()]


@checks.register(checks.Tags.database)  # type: ignore[untyped-decorator]  # the same
@left_alone
def check_tables(databases: Any = None, **_: Any) -> list[checks.CheckMessage]:
    """Return whether the outbox's tables are there, where databases may be asked (`--database`).

    With 'outbox_migrations.django' installed, `migrate` makes them.
    """
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]  # of a Proxy
    if apps.is_installed("outbox_migrations.django") or not isinstance(app, OutboxCelery):
        return []
    try:
        alias, schema = settings.django_alias(app), settings.schema(app)
    except InvalidSetting:  # of which the other checks tell
        return []
    if alias is None or alias not in (databases or ()):
        return []
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [f"{schema}.message"])
        if cursor.fetchone()[0] is not None:
            return []
    return [
        checks.Warning(
            f"The outbox's tables are not in the database {alias!r}: no task can be enqueued.",
            hint="Add 'outbox_migrations.django' to INSTALLED_APPS and run `manage.py migrate`, or"
            " run `outbox-migrate up`.",
            id="celery_outbox.W002",
        )
    ]


def _options(backend: Any) -> list[checks.CheckMessage]:
    if not backend.options:
        return []
    named = ", ".join(sorted(map(str, backend.options)))
    return [
        checks.Error(
            f"The task backend {backend.alias!r} has OPTIONS that are not known: {named}.",
            hint="Remove them. What Celery is told, it reads from its own configuration.",
            id="celery_outbox.E003",
        )
    ]


def _app_and_database() -> list[checks.CheckMessage]:
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]  # of a Proxy
    if not isinstance(app, OutboxCelery):
        return [checks.Error(NO_APP, hint=APP_HINT, id="celery_outbox.E001")]
    try:
        _, alias = settings.schema(app), settings.django_alias(app)
    except InvalidSetting as error:
        return [checks.Error(str(error), hint=ALIAS_HINT, id="celery_outbox.E002")]
    if alias is None:
        problem = "Django's database 'default' is no Postgres, so no transaction could have tasks."
    elif connections[alias].vendor != "postgresql":
        problem = f"OUTBOX_DATABASE_ALIAS names {alias!r}, which is no Postgres."
    else:
        return []
    return [checks.Error(problem, hint=ALIAS_HINT, id="celery_outbox.E002")]


def _installed() -> list[checks.CheckMessage]:
    if apps.is_installed("celery_outbox.django"):
        return []
    return [
        checks.Warning(
            "'celery_outbox.django' is not among INSTALLED_APPS: autodiscover_tasks() does not find"
            " the Celery task that runs Django's.",
            hint="Add 'celery_outbox.django', and 'outbox_migrations.django' for the tables.",
            id="celery_outbox.W001",
        )
    ]
