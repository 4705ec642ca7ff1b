"""Every way Celery sends a task, through outbox, relay and an ordinary worker, to its result."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery import chain, chord, group, signature
from celery.result import AsyncResult

from tests.end_to_end.conftest import Lab
from tests.end_to_end.tasks import add, app, arrived_with, become, fail, note, succeed_on, total
from tests.fixtures.waiting import wait_until

SECONDS = 30


def test_delay(lab: Lab) -> None:
    """delay() in a transaction returns an AsyncResult that becomes the task's result."""
    with lab.transaction():
        result = add.delay(2, 3)

    assert result.get(timeout=SECONDS) == 5


def test_send_task_with_an_id_of_ones_own(lab: Lab) -> None:
    """send_task() by name keeps a custom string id all the way."""
    task_id = f"order-{uuid4()}"
    with lab.transaction():
        result = app.send_task("tests.end_to_end.tasks.add", (1, 1), task_id=task_id)

    assert (result.id, result.get(timeout=SECONDS)) == (task_id, 2)


def test_chain(lab: Lab) -> None:
    """Each step of a chain is sent by the worker, and gets the result of the one before."""
    with lab.transaction():
        result = chain(add.s(1, 2), add.s(3), add.s(4)).delay()

    assert result.get(timeout=SECONDS) == 10


def test_group(lab: Lab) -> None:
    """All members of a group run, their results in order."""
    with lab.transaction():
        result = group(add.s(n, n) for n in range(5)).delay()

    assert result.get(timeout=SECONDS) == [0, 2, 4, 6, 8]


def test_chord(lab: Lab) -> None:
    """A chord's body runs once its header has."""
    with lab.transaction():
        result = chord([add.s(n, n) for n in range(5)], total.s()).delay()

    assert result.get(timeout=SECONDS) == 20


def test_nested_canvas(lab: Lab) -> None:
    """A chain of a task, a group and a body, which Celery turns into a chord."""
    with lab.transaction():
        result = chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()).delay()

    assert result.get(timeout=SECONDS) == 7


def test_link_and_link_error(lab: Lab) -> None:
    """A link runs after success, an errback after failure."""
    linked, errback = str(uuid4()), str(uuid4())
    with lab.transaction():
        add.apply_async((1, 2), link=note.s().set(task_id=linked))
        failed = fail.apply_async(("on purpose",), link_error=note.si().set(task_id=errback))

    assert AsyncResult(linked, app=app).get(timeout=SECONDS) == linked
    with pytest.raises(ValueError, match="on purpose"):
        failed.get(timeout=SECONDS)
    assert AsyncResult(errback, app=app).get(timeout=SECONDS) == errback


def test_retry(lab: Lab) -> None:
    """A task that retries itself runs again under the same id."""
    with lab.transaction():
        result = succeed_on.delay(2)

    assert result.get(timeout=SECONDS) == 2


def test_replace(lab: Lab) -> None:
    """A task that replaces itself yields the other's result."""
    with lab.transaction():
        result = become.delay(20, 22)

    assert result.get(timeout=SECONDS) == 42


def test_countdown_is_waited_for_in_the_outbox(lab: Lab) -> None:
    """A task with a countdown is scheduled, not in any queue, and not run before its time."""
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    with lab.transaction() as connection:
        result = arrived_with.apply_async(countdown=1.5)
        scheduled = connection.execute(
            "SELECT count(*) FROM outbox.scheduled WHERE message_id = %s", (result.id,)
        ).fetchone()

    assert scheduled == (1,)
    seen: dict[str, Any] = result.get(timeout=SECONDS)
    assert datetime.now(UTC) >= due
    assert datetime.fromisoformat(seen["eta"]) >= due - timedelta(seconds=0.1)


def test_what_a_worker_sends_is_a_row(lab: Lab) -> None:
    """A chain's next step, a chord's body and a retry are durable before they are sent."""
    with lab.transaction():
        step: Any = chain(add.s(1, 1), add.s(2)).apply_async()
        body = chord([add.s(1, 1), add.s(2, 2)], total.s()).apply_async()
        retried = succeed_on.delay(1)
    for result in (step, body, retried):
        result.get(timeout=SECONDS)

    with psycopg.connect(lab.database) as connection:
        rows = connection.execute("SELECT message_id FROM outbox.message").fetchall()
    stored = [message_id for (message_id,) in rows]
    assert {step.parent.id, step.id, body.id} <= set(stored)
    assert stored.count(retried.id) == 2


class ChangeOfMind(Exception):
    """What rolls a transaction back."""


def _send_and_roll_back(block: AbstractContextManager[Any]) -> str:
    try:
        with block:
            sent = add.delay(1, 1).id
            raise ChangeOfMind
    except ChangeOfMind:
        return sent


def test_rollback_sends_nothing(lab: Lab) -> None:
    """Of a rolled back transaction, or savepoint, nothing reaches a worker."""
    lost = {_send_and_roll_back(lab.transaction())}
    with lab.transaction() as connection:
        lost.add(_send_and_roll_back(connection.transaction()))
        kept = add.delay(2, 2)

    assert kept.get(timeout=SECONDS) == 4
    with psycopg.connect(lab.database) as connection:
        rows = connection.execute("SELECT message_id FROM outbox.message").fetchall()
    assert not lost & {row[0] for row in rows}


def test_a_task_from_sql(lab: Lab) -> None:
    """outbox.enqueue() in plain SQL is run by the same worker."""
    with psycopg.connect(lab.database) as connection:
        row = connection.execute(
            "SELECT outbox.enqueue('tests.end_to_end.tasks.add', '[40, 2]')"
        ).fetchone()
    assert row

    assert AsyncResult(row[0], app=app).get(timeout=SECONDS) == 42


def test_a_lone_task_does_not_wait_for_company(lab: Lab) -> None:
    """One task after a pause is published by itself, soon, without a notification."""
    with lab.transaction():
        result = signature("tests.end_to_end.tasks.add", (1, 2), app=app).apply_async()
    committed = monotonic()

    def sent() -> bool:
        with psycopg.connect(lab.database) as connection:
            query = "SELECT 1 FROM outbox.sent WHERE message_id = %s"
            return connection.execute(query, (result.id,)).fetchone() is not None

    wait_until(sent, SECONDS, "the row to be sent")
    assert monotonic() - committed < SECONDS
    assert result.get(timeout=SECONDS) == 3
