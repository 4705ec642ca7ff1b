"""Where the outbox is: read from Celery's configuration, then from the environment.

An unknown or malformed value is refused with a message that names the setting, never its content.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from celery import Celery

from celery_outbox.errors import InvalidSetting

#: The largest body the table takes, in bytes: the default max_message_size of RabbitMQ 3.
MAX_BODY: Final = 134_217_728
#: The default of `outbox_max_body`: the default max_message_size of RabbitMQ 4.
DEFAULT_MAX_BODY: Final = 16_777_216

IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def schema(app: Celery) -> str:
    """Return the Postgres schema of the outbox.

    `outbox_schema` in Celery's configuration, else OUTBOX_SCHEMA in Django's settings or in the
    environment, else `outbox`.
    """
    name = (
        app.conf.get("outbox_schema")
        or _django_setting("OUTBOX_SCHEMA")
        or os.environ.get("OUTBOX_SCHEMA")
        or "outbox"
    )
    if not IDENTIFIER.fullmatch(name):
        raise InvalidSetting.about(
            setting="OUTBOX_SCHEMA (outbox_schema)",
            problem="must be lower-case letters, digits and underscores, at most 63",
        )
    return str(name)


def max_body(app: Celery) -> int:
    """Return the largest body that is stored, in bytes: `outbox_max_body`, by default 16 MiB.

    It is what the broker takes that counts, which nobody here can ask.
    """
    limit = app.conf.get("outbox_max_body", DEFAULT_MAX_BODY)
    if type(limit) is not int or not 0 < limit <= MAX_BODY:
        raise InvalidSetting.about(
            setting="outbox_max_body", problem=f"must be a number of bytes from 1 to {MAX_BODY}"
        )
    return limit


def django_alias(app: Celery) -> str | None:
    """Return the Django database in which messages join or make a transaction, if there is one.

    `outbox_django_alias` in Celery's configuration, else OUTBOX_DATABASE_ALIAS in Django's
    settings, else `default`, if that one is a Postgres. None where Django is not in use.
    """
    if not django_in_use():
        return None
    from django.db import connections  # type: ignore[import-untyped]  # Django ships no types

    chosen = app.conf.get("outbox_django_alias") or _django_setting("OUTBOX_DATABASE_ALIAS")
    alias = str(chosen or "default")
    if chosen is not None and alias not in connections:
        raise InvalidSetting.about(
            setting="OUTBOX_DATABASE_ALIAS (outbox_django_alias)",
            problem="is not the alias of a database in Django's DATABASES",
        )
    postgres = alias in connections and connections[alias].vendor == "postgresql"
    return alias if chosen is not None or postgres else None


def _django_setting(name: str) -> Any:
    if not django_in_use():
        return None
    from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types

    return getattr(settings, name, None)


def django_in_use() -> bool:
    """Tell whether this process is part of a Django project."""
    if "django.conf" not in sys.modules:
        return False
    from django.conf import settings

    return bool(settings.configured or os.environ.get("DJANGO_SETTINGS_MODULE"))


def names_database_url(app: Celery) -> bool:
    """Tell whether `database_url` is configured, readable or not."""
    names = ("OUTBOX_DATABASE_URL", "OUTBOX_DATABASE_URL_FILE")
    return bool(app.conf.get("outbox_database_url") or any(map(os.environ.get, names)))


def database_url(app: Celery) -> str | None:
    """Return the URL for rows of their own transaction, or None where none is configured.

    `outbox_database_url` in Celery's configuration, else OUTBOX_DATABASE_URL, else the content of
    the file that OUTBOX_DATABASE_URL_FILE names, read anew each time so that it can be rotated.
    """
    if url := app.conf.get("outbox_database_url"):
        return str(url)
    url, path = os.environ.get("OUTBOX_DATABASE_URL"), os.environ.get("OUTBOX_DATABASE_URL_FILE")
    if url and path:
        raise InvalidSetting.about(
            setting="OUTBOX_DATABASE_URL and OUTBOX_DATABASE_URL_FILE",
            problem="are both set: keep one",
        )
    if url:
        return url
    if path:
        try:
            return Path(path).read_text().strip()
        except OSError as error:
            raise InvalidSetting.about(
                setting="OUTBOX_DATABASE_URL_FILE", problem=f"cannot be read: {error.strerror}"
            ) from error
    return None
