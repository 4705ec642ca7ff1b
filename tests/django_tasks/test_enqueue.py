"""What is enqueued is a row in the caller's transaction, and says what Celery needs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import (  # type: ignore[import-untyped]  # Django ships no types
    SynchronousOnlyOperation,
)
from django.db import transaction  # type: ignore[import-untyped]  # the same
from django.tasks import TaskResultStatus, task_backends  # type: ignore[import-untyped]  # the same
from django.tasks.exceptions import InvalidTask  # type: ignore[import-untyped]  # the same
from django.tasks.signals import task_enqueued  # type: ignore[import-untyped]  # the same
from django.test import override_settings  # type: ignore[import-untyped]  # the same
from django.utils import timezone  # type: ignore[import-untyped]  # the same

from django_suite.worker import carry_out
from tests.django_tasks import work
from tests.django_tasks.conftest import TASKS


def rows(database: str) -> list[tuple[Any, ...]]:
    """Id, queue, priority and shown arguments of every row, oldest first."""
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT message_id, routing_key, (properties->>'priority')::int,"
            " headers->>'argsrepr', headers->>'shadow' FROM outbox.message ORDER BY id"
        ).fetchall()


def test_it_commits_with_the_transaction(app: Any, database: str) -> None:
    """The row is there after the commit, and not before; what it shows is the task's path."""
    with transaction.atomic():
        result = work.add.enqueue(1, right=2)
        assert rows(database) == []

    path = "tests.django_tasks.work.add"
    assert rows(database) == [(result.id, "celery", 4, f"('{path}', [1], {{'right': 2}})", path)]
    assert result.status == TaskResultStatus.READY
    assert (result.args, result.kwargs, result.attempts) == ([1], {"right": 2}, 0)
    assert result.enqueued_at <= timezone.now()


def test_a_rollback_takes_it_along(app: Any, database: str) -> None:
    """Of what a savepoint took back, and of what the transaction did, nothing is left."""
    with transaction.atomic():
        kept = work.add.enqueue(1)
        with transaction.atomic():
            work.add.enqueue(2)
            transaction.set_rollback(True)
    with transaction.atomic():
        work.add.enqueue(3)
        transaction.set_rollback(True)

    assert [row[0] for row in rows(database)] == [kept.id]


def test_without_a_transaction_it_is_durable(app: Any, database: str) -> None:
    """The row is there when `enqueue` returns."""
    result = work.add.enqueue(1)

    assert [row[0] for row in rows(database)] == [result.id]


def test_asynchronously(app: Any, database: str) -> None:
    """`aenqueue` joins the transaction of a block that is open in the thread of Django's ORM."""

    def rolled_back() -> None:
        with transaction.atomic():
            async_to_sync(work.add.aenqueue)(1)
            transaction.set_rollback(True)

    async def view() -> Any:
        await sync_to_async(rolled_back)()
        return await work.add_async.aenqueue(2)

    result = async_to_sync(view)()

    assert [row[0] for row in rows(database)] == [result.id]


def test_an_event_loop_is_refused_as_django_does(app: Any, database: str) -> None:
    """`enqueue` blocks: in a coroutine Django itself says so, and nothing is stored."""

    async def view() -> None:
        work.add.enqueue(1)

    with pytest.raises(SynchronousOnlyOperation):
        async_to_sync(view)()

    assert rows(database) == []


def test_run_after_is_held_by_the_outbox(app: Any, database: str) -> None:
    """Until then the row is scheduled, and no worker holds it."""
    when = timezone.now() + timedelta(hours=1)
    result = work.add.using(run_after=when).enqueue(1)

    with psycopg.connect(database) as connection:
        scheduled = connection.execute("SELECT message_id, available_at FROM outbox.scheduled")
        assert scheduled.fetchall() == [(result.id, when)]


def test_run_after_where_times_have_no_zone(app: Any, database: str) -> None:
    """It is in the project's own zone, and told as it was given."""
    when = datetime(2099, 1, 1, 12)
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        result = work.add.using(run_after=when).enqueue(1)
        assert work.add.get_result(result.id).task.run_after == when

    with psycopg.connect(database) as connection:
        ((available_at,),) = connection.execute("SELECT available_at FROM outbox.scheduled")
    assert available_at == datetime(2099, 1, 1, 3, tzinfo=UTC)


def test_queues_and_priorities(app: Any, database: str) -> None:
    """The default queue is Celery's; others are called what they are. 0 is in the middle."""
    for priority in (-100, -1, 0, 1, 100):
        work.add.using(priority=priority, queue_name="mail").enqueue(1)

    assert [row[1:3] for row in rows(database)] == [("mail", n) for n in (0, 3, 4, 5, 9)]


def test_what_is_no_task_is_refused(app: Any, database: str) -> None:
    """A queue that QUEUES does not name, and arguments that are no JSON, as Django says."""
    with pytest.raises(InvalidTask, match="Queue 'other' is not valid"):
        work.add.using(queue_name="other")
    with pytest.raises(TypeError, match="Unsupported type"):
        work.add.enqueue(timezone.now())
    mailing = work.add.using(queue_name="mail")
    fewer = override_settings(TASKS={"default": {**TASKS["default"], "QUEUES": ["default"]}})
    with fewer, pytest.raises(InvalidTask, match="Queue 'mail' is not valid"):
        mailing.enqueue(1)

    assert rows(database) == []


def test_arguments_are_told_as_the_worker_gets_them(app: Any, database: str) -> None:
    """Keys become text at once, not on the way; two that would be one are refused."""
    result = work.echo.enqueue({1: ("a",), None: "b"})
    assert result.args == [{"1": ["a"], "null": "b"}] == work.echo.get_result(result.id).args

    with pytest.raises(TypeError, match="the same text in JSON"):
        work.echo.enqueue({1: "a", "1": "b"})

    assert carry_out(app, result.id).retval == {"1": ["a"], "null": "b"}
    assert len(rows(database)) == 1


def test_the_signal_has_the_id(app: Any, database: str) -> None:
    """Receivers of `task_enqueued` are told of the task, and can look its row up."""
    heard: list[Any] = []

    def hear(sender: type, task_result: Any, **_: Any) -> None:
        heard.append((sender, task_result.id))

    task_enqueued.connect(hear)
    try:
        result = work.add.enqueue(1)
    finally:
        task_enqueued.disconnect(hear)

    assert heard == [(type(task_backends["default"]), result.id)]


def test_a_message_that_was_sent_before_an_upgrade(app: Any) -> None:
    """Its name and its form stay, for messages outlive the code that has sent them."""
    facts = {"backend": "default", "queue_name": "mail", "priority": 3, "run_after": None}
    call = ("tests.django_tasks.work.add", [1], {"right": 2})
    sent = app.send_task(
        "celery_outbox.django.tasks.run",
        call,
        {**facts, "enqueued_at": "2026-11-28T20:00:00+00:00"},
    )

    assert carry_out(app, sent.id).retval == 3
    result = work.add.get_result(sent.id)
    assert (result.task.queue_name, result.task.priority) == ("mail", 3)
    assert result.enqueued_at == datetime(2026, 11, 28, 20, tzinfo=UTC)
