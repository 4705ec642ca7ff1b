"""The task that every producer here sends: two arguments by position and two by name."""

from dataclasses import dataclass
from typing import Any, Final

from celery_outbox import OutboxCelery

NAME: Final = "shop.tasks.send_order_mail"


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the task is called with."""

    positional: tuple[object, ...]
    named: dict[str, object]


ARGUMENTS: Final = Arguments(
    (1234, "customer-1234@example.com"), {"order_id": 1234, "note": "x" * 40}
)


def send_order_mail(customer: int, address: str, *, order_id: int, note: str) -> None:
    """The task's body, which is never run here."""


def outbox_app(queue: str) -> tuple[OutboxCelery, Any]:
    """An app that sends through the outbox, and its task."""
    app = OutboxCelery("shop", set_as_current=False)
    app.conf.task_default_queue = queue
    return app, app.task(name=NAME)(send_order_mail)
