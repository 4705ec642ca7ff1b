"""The five views of the outbox as models that are only ever read."""

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
        # "manage": to retry, to replay and to discard.
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
    """To be published: due, held by a relay at this moment, or waiting for another attempt."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("pending")
        verbose_name = "pending message"
        verbose_name_plural = "pending"


class Scheduled(Unsent):
    """Held until their time (eta or countdown) has come."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("scheduled")
        verbose_name = "scheduled message"
        verbose_name_plural = "scheduled"


class Dead(Unsent):
    """Given up, as no broker could take them. Fix what the last error names, then retry."""

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("dead")
        verbose_name = "dead message"
        verbose_name_plural = "dead"


class Expired(Unsent):
    """Over before a worker could have them. That is no error, and there is nothing to be done."""

    expired_at = models.DateTimeField()

    class Meta(Unsent.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("expired")
        verbose_name = "expired message"
        verbose_name_plural = "expired"


class Sent(Row):
    """Confirmed by the broker, and kept for a while: they can be looked at and replayed."""

    sent_at = models.DateTimeField()

    class Meta(Row.Meta):  # noqa: D106 - Django's own place for options
        abstract = False
        db_table = table("sent")
        verbose_name = "sent message"
        verbose_name_plural = "sent"
