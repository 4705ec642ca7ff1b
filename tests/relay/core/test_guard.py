"""What waits for a worker that knows its task, and what is published because nobody can know."""

import json
from typing import Any

import pytest

from outbox_relay.configuration import from_environment
from outbox_relay.core.claim import ClaimedRow, Fetched, Reply
from outbox_relay.core.decide import Core
from outbox_relay.core.guard import Guard
from outbox_relay.core.message import Message, Reason
from tests.relay.messages import a_message


def guard(**known: set[str]) -> Guard:
    """One that has been told."""
    made = Guard()
    made.known = {queue: frozenset(tasks) for queue, tasks in known.items()}
    return made


def of(task: object, **columns: Any) -> Message:
    """A message of Celery's for the queue celery."""
    return a_message(headers=json.dumps({"lang": "py", "task": task}).encode(), **columns)


def held(by: Guard, message: Message) -> bool:
    """Whether it waits."""
    allowed, refused = by.sort([message])
    assert len(allowed) + len(refused) == 1
    return bool(refused)


def test_a_task_that_no_worker_of_its_queue_knows_waits() -> None:
    """The reason names the task and the queue."""
    by = guard(celery={"shop.bill"}, letters={"shop.mail"})

    allowed, [refusal] = by.sort([of("shop.bill"), of("shop.mail")])
    assert [message.headers for message in allowed] == [of("shop.bill").headers]
    assert refusal.reason is Reason.UNKNOWN_TASK
    assert refusal.detail == "no live worker of queue 'celery' knows 'shop.mail'"


@pytest.mark.parametrize(
    "message",
    [
        of("shop.mail", routing_key="letters"),  # no live worker says anything of that queue
        of("shop.mail", exchange="topic"),  # which queues are bound, the row does not tell
        a_message(headers=b"{}"),
        a_message(headers=b'{"order": {"task": "shop.mail"}}'),  # no task of Celery's
        a_message(headers=b"not json"),
        of(7),
        of("shop.mail", expired=True),  # it ends, whoever knows it
    ],
    ids=["queue", "exchange", "no-task", "nested", "nonsense", "number", "expired"],
)
def test_what_cannot_be_known_is_published(message: Message) -> None:
    """Rather than waiting for ever."""
    assert not held(guard(celery={"shop.bill"}), message)
    assert not held(Guard(), message)


def test_a_queue_that_the_row_declares_is_known() -> None:
    """Behind an exchange of its own."""
    queue = {"kind": "queue", "name": "letters", "exchange": {"name": "topic"}}
    message = of("shop.mail", exchange="topic", declare=json.dumps([queue]))

    assert held(guard(letters={"shop.bill"}), message)
    assert not held(guard(letters={"shop.mail"}), message)


def test_a_name_with_escapes_is_read_as_json_has_it() -> None:
    """The quick look at the text is only a hint."""
    assert not held(guard(celery={"shop.\u00e4"}), of("shop.\u00e4"))
    assert held(guard(celery={"shop.a"}), of("shop.\u00e4"))


def test_it_waits_at_no_attempt_and_is_tried_again_by_itself() -> None:
    """However often it has waited."""
    settings = from_environment({"OUTBOX_DATABASE_URL": "host=x", "OUTBOX_BROKER_URL": "amqp://x"})
    core = Core(settings, 1, guard(celery={"shop.bill"}))
    turn = core.turn(0.0, claiming=True, blocked=False, in_flight_bytes=0)
    row = ClaimedRow(1, 0, attempts=9, suspicion=0)
    core.turned(turn, Reply(None, [row]), 0.0)
    message = of("shop.mail", id=1, claim_id=turn.claim_id, attempts=9)

    work = core.fetched(Fetched([message], [], [], []), 0.0)
    assert work.publish == []
    [parking] = core.parkings(work.refused)
    assert (parking.state, parking.attempts) == ("retry", 9)
    assert parking.error.startswith("unknown task: no live worker")
    assert parking.delay >= 300
