"""The four views of the outbox as models that are only ever read."""

import os
from typing import ClassVar, Final

from django.conf import settings  # type: ignore[import-untyped]  # Django ships no types
from django.db import models  # type: ignore[import-untyped]  # the same

SCHEMA: Final = getattr(settings, "OUTBOX_SCHEMA", None) or os.environ.get(
    "OUTBOX_SCHEMA", "outbox"
)


def table(view: str) -> str:
    """Return the name of a view as Django's quoting makes schema and name of it."""
    return f'{SCHEMA}"."{view}'


class Row(models.Model):  # type: ignore[misc]  # Django ships no types
    """What every view shows of a message."""

    id = models.BigIntegerField(primary_key=True)
    message_id = models.TextField()
    task = models.TextField()
    exchange = models.TextField()
    routing_key = models.TextField()
    args = models.TextField(null=True)
    kwargs = models.TextField(null=True)
    created_at = models.DateTimeField()

    class Meta:  # noqa: D106 - Django's own place for options
        abstract = True
        managed = False
        # "manage": to retry and to discard.
        default_permissions = ("view", "manage")
        ordering: ClassVar = ["-id"]

    def __str__(self) -> str:
        return f"{self.task} {self.message_id}"


class Unsent(Row):
    """What the views of unsent messages show besides."""

    available_at = models.DateTimeField(null=True)
    attempts = models.IntegerField()
    last_error = models.TextField(null=True)

    class Meta(Row.Meta):  # noqa: D106 - Django's own place for options
        abstract = True


class Pending(Unsent):
    """Messages to be published now."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("pending")
        verbose_name_plural = "pending"


class Scheduled(Unsent):
    """Messages whose time has not come."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("scheduled")
        verbose_name_plural = "scheduled"


class Dead(Unsent):
    """Messages no broker could take."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("dead")
        verbose_name_plural = "dead"


class Sent(Row):
    """Messages a broker confirmed."""

    sent_at = models.DateTimeField()

    class Meta(Row.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("sent")
        verbose_name_plural = "sent"
