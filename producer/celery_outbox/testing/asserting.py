"""What a test claims to have sent, compared with what was sent. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery

from celery_outbox.testing.messages import OutboxMessage

#: Messages that are shown when a claim does not hold.
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Claim:
    """What is looked for; what is None does not matter."""

    task: str
    args: Sequence[Any] | Mapping[str, Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    queue: str | None = None

    def fits(self, app: Celery, message: OutboxMessage) -> bool:
        """Tell whether this is such a message."""
        return (
            message.task == self.task
            and (self.args is None or _plain(self.args) == _plain(message.args))
            and (self.kwargs is None or _plain(self.kwargs) == _plain(message.kwargs))
            and (self.queue is None or _goes_to(app, self.queue, message))
        )

    def __str__(self) -> str:
        parts = [self.task]
        if self.args is not None:
            parts.append(f"with args={_plain(self.args)!r}")
        if self.kwargs is not None:
            parts.append(f"with kwargs={dict(self.kwargs)!r}")
        if self.queue is not None:
            parts.append(f"to the queue {self.queue!r}")
        return " ".join(parts)


def check_sent(
    app: Celery, claim: Claim, count: int | None, messages: Sequence[OutboxMessage]
) -> list[OutboxMessage]:
    """Return the messages that fit; raise AssertionError where there are not as many as claimed."""
    found = [message for message in messages if claim.fits(app, message)]
    if len(found) == count or (count is None and found):
        return found
    times = {0: "never", 1: "once"}.get(len(found), f"{len(found)} times")
    expected = "" if count is None else f", not {count} time{'' if count == 1 else 's'}"
    raise AssertionError(f"{claim} was {times} sent{expected}.\n{_listed(messages)}")


def check_nothing_sent(messages: Sequence[OutboxMessage]) -> None:
    """Raise AssertionError where there are any."""
    if messages:
        raise AssertionError(f"Nothing was to be sent.\n{_listed(messages)}")


def _listed(messages: Sequence[OutboxMessage]) -> str:
    if not messages:
        return "Nothing was sent."
    lines = [f"  {_shown(message)}" for message in messages[:SHOWN]]
    if len(messages) > SHOWN:
        lines.append(f"  and {len(messages) - SHOWN} more")
    return "\n".join(["This was sent:", *lines])


def _shown(message: OutboxMessage) -> str:
    """Return a message in a line: by its call, its place, and its time if it has one."""
    args = message.args if isinstance(message.args, list | tuple) else [message.args]
    call = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in message.kwargs.items())])
    place = message.routing_key
    if message.exchange:
        place = f"{message.exchange} ({message.routing_key})"
    line = f"{message.task}({call}) to {place}"
    return line if message.eta is None else f"{line}, not before {message.eta.isoformat()}"


def _goes_to(app: Any, queue: str, message: OutboxMessage) -> bool:
    """Tell whether a message reaches the queue, as far as the app's settings say."""
    if not message.exchange:
        return message.routing_key == queue
    known = app.amqp.queues.get(queue)
    place = (message.exchange, message.routing_key)
    return known is not None and place == (known.exchange.name, known.routing_key)


def _plain(value: Any) -> Any:
    """Return a value with lists for what JSON makes lists of."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def task_name(task: object) -> str:
    """Return the name of a task, given as one or as itself."""
    name = task if isinstance(task, str) else getattr(task, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"a task or its name is needed, not {type(task).__name__}")
    return name


def by_id(messages: Iterable[tuple[int, OutboxMessage]]) -> list[OutboxMessage]:
    """Return messages in the order of sending."""
    return [message for _, message in sorted(messages, key=lambda each: each[0])]
