"""What a task came to: its result, from the outbox's row to Celery's result backend."""

from datetime import datetime, timedelta
from signal import SIGTERM
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from asgiref.sync import async_to_sync
from billiard.exceptions import WorkerLostError
from celery.result import AsyncResult
from django.db import connections, transaction  # type: ignore[import-untyped]  # Django ships no types
from django.tasks import TaskResultStatus, task_backends  # type: ignore[import-untyped]  # the same
from django.tasks.exceptions import (  # type: ignore[import-untyped]  # the same
    TaskResultDoesNotExist,
    TaskResultMismatch,
)
from django.tasks.signals import (  # type: ignore[import-untyped]  # the same
    task_finished,
    task_started,
)
from psycopg.sql import SQL, Identifier

from celery_outbox.django.tasks.errors import UnknownTask, UnreadableOutbox
from celery_outbox.django.tasks.running import LOOKS
from django_suite.worker import carry_out
from outbox_migrations import grant
from servers import Valkey
from tests.django_tasks import work
from tests.fixtures.rows import states


def test_from_ready_to_successful(app: Any) -> None:
    """The row is READY, in its own transaction too; what was returned is there when it has run."""
    with transaction.atomic():
        result = work.add.enqueue(1, right=2)
        assert work.add.get_result(result.id) == result
    assert task_backends["default"].supports_get_result

    carry_out(app, result.id, "celery@shop")
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == 3
    assert (result.attempts, result.worker_ids) == (1, ["celery@shop"])
    assert result.enqueued_at <= result.started_at == result.last_attempted_at <= result.finished_at


def test_of_an_asynchronous_task(app: Any) -> None:
    """A coroutine is run to its end, and its result can be awaited."""
    result = work.add_async.enqueue(1, right=2)
    carry_out(app, result.id)

    found = async_to_sync(work.add_async.aget_result)(result.id)

    assert found.return_value == 3


def test_attempts_are_counted(app: Any) -> None:
    """Each delivery is one, which the context knows; a retry that it asks Celery for as well."""
    failing, again = work.fail.enqueue("no"), work.attempt.enqueue(until=2)
    for hostname in ("celery@first", "celery@second"):
        carry_out(app, failing.id, hostname)
        carry_out(app, again.id, hostname)

    assert work.fail.get_result(failing.id).worker_ids == ["celery@first", "celery@second"]
    assert work.attempt.get_result(again.id).return_value == [2, again.id, "RUNNING"]


def test_a_delivery_after_success_may_be_passed_over(app: Any) -> None:
    """Celery's own setting for that works, for its state of the task is SUCCESS."""
    app.conf.update(task_acks_late=True, worker_deduplicate_successful_tasks=True)
    result = work.add.enqueue(1)
    for _ in range(2):
        carry_out(app, result.id, delivery_info={"redelivered": True})
    result.refresh()

    assert (result.return_value, result.attempts) == (1, 1)


def test_a_failure_is_told_as_django_says(app: Any) -> None:
    """Class and traceback of what was raised; Celery's own state says FAILURE as well."""
    result = work.fail.enqueue("sold out")
    carry_out(app, result.id)
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    (error,) = result.errors
    assert error.exception_class is work.Rejected
    assert error.traceback.startswith("Traceback")
    assert error.traceback.endswith("Rejected: sold out\n")
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    asked: Any = AsyncResult(result.id, app=app)
    assert (asked.state, str(asked.result)) == ("FAILURE", error.exception_class_path)


def test_what_is_no_json_is_a_failure(app: Any) -> None:
    """As with Django's own backends."""
    result = work.tell_time.enqueue()
    carry_out(app, result.id)
    result.refresh()

    assert [error.exception_class for error in result.errors] == [TypeError]


def test_an_exit_is_the_tasks_alone(app: Any) -> None:
    """A task that calls sys.exit() has failed, as by Django's backends; its process goes on."""
    result = work.leave.enqueue(1)
    carry_out(app, result.id)
    result.refresh()

    assert [error.exception_class for error in result.errors] == [SystemExit]


def test_the_end_of_a_worker_is_no_failure(app: Any) -> None:
    """As billiard exits on SIGTERM: the message may come again, so nothing has finished."""
    result = work.leave.enqueue(-(256 - SIGTERM))
    with pytest.raises(SystemExit):
        carry_out(app, result.id)
    result.refresh()

    assert (result.status, result.errors) == (TaskResultStatus.RUNNING, [])


def test_a_worker_that_was_killed(app: Any) -> None:
    """What only Celery knows of is read as well."""
    result = work.add.enqueue(1)
    app.backend.mark_as_failure(result.id, WorkerLostError("exitcode 9"))
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].exception_class is WorkerLostError
    assert isinstance(result.finished_at, datetime)


def test_a_message_that_no_broker_takes(app: Any, database: str) -> None:
    """A row that is dead could not start: FAILED, with the reason; READY once it is retried."""
    result = work.add.enqueue(1)
    with psycopg.connect(database) as connection:
        connection.execute(
            "WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.parked (id, slot, state, available_at, last_error)"
            " SELECT id, slot, 'dead', now(), 'too_large' FROM gone"
        )
    result.refresh()
    assert result.status == TaskResultStatus.FAILED
    assert result.errors[0].traceback == "too_large"

    with psycopg.connect(database) as connection:
        connection.execute("SELECT outbox.retry(%s)", [result.id])
    result.refresh()

    assert result.status == TaskResultStatus.READY


def test_a_result_that_has_expired(app: Any, database: str) -> None:
    """A row that is kept longer says READY only while its task cannot have run, or just now."""
    result = work.add.enqueue(1)
    app.conf.result_expires = 0.001
    assert work.add.get_result(result.id).status == TaskResultStatus.READY

    with psycopg.connect(database) as connection:
        connection.execute(
            "WITH done AS (DELETE FROM outbox.ready RETURNING id, slot)"
            " INSERT INTO outbox.receipt (slot, span, ids)"
            " SELECT slot, int8range(id, id, '[]'), ARRAY[id] FROM done"
        )
    with pytest.raises(TaskResultDoesNotExist):
        work.add.get_result(result.id)
    for kept in (timedelta(days=1), None):
        app.conf.result_expires = kept
        assert work.add.get_result(result.id).status == TaskResultStatus.READY


def test_a_retry_of_celery_is_ready_again(app: Any, database: str) -> None:
    """A function that asks Celery to try again later has not failed; its row waits."""
    result = work.attempt.enqueue(until=2)
    carry_out(app, result.id)
    result.refresh()

    assert (result.status, result.attempts, result.errors) == (TaskResultStatus.READY, 1, [])
    assert states(database)["scheduled"] == 1


def test_signals(app: Any) -> None:
    """`task_started` and `task_finished`; a receiver that raises fails no task."""
    heard: list[Any] = []

    def hear(signal: Any, task_result: Any, **_: Any) -> None:
        heard.append((signal, task_result.id, str(task_result.status)))
        raise RuntimeError

    for signal in (task_started, task_finished):
        signal.connect(hear)
    try:
        good, bad = work.add.enqueue(1), work.fail.enqueue("no")
        carry_out(app, good.id)
        carry_out(app, bad.id)
    finally:
        for signal in (task_started, task_finished):
            signal.disconnect(hear)

    assert heard == [
        (task_started, good.id, "RUNNING"),
        (task_finished, good.id, "SUCCESSFUL"),
        (task_started, bad.id, "RUNNING"),
        (task_finished, bad.id, "FAILED"),
    ]


def test_what_does_not_exist(app: Any) -> None:
    """An unknown id, a Celery task's id, another task's id."""
    other = app.send_task("shop.bill").id
    for unknown in ("123", other):
        with pytest.raises(TaskResultDoesNotExist):
            work.add.get_result(unknown)
    with pytest.raises(TaskResultMismatch):
        work.add.get_result(work.fail.enqueue("no").id)


def test_a_function_that_a_worker_does_not_know(
    app: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be newer than the worker's code: tried again later, and run where it is known."""
    result = work.add.enqueue(1, right=2)
    with monkeypatch.context() as older:
        older.delattr(work, "add")
        carry_out(app, result.id)
    assert states(database)["scheduled"] == 1
    assert work.add.get_result(result.id).status == TaskResultStatus.READY

    carry_out(app, result.id)

    assert work.add.get_result(result.id).return_value == 3


def test_a_function_that_is_gone(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the end the worker's error names the path; its result is no result any more."""
    result = work.add.enqueue(1)
    monkeypatch.delattr(work, "add")
    carry_out(app, result.id, retries=LOOKS)

    assert isinstance(app.backend.get_result(result.id), UnknownTask)
    with pytest.raises(TaskResultDoesNotExist, match=r"work\.add is no task"):
        task_backends["default"].get_result(result.id)


@pytest.mark.parametrize("kind", ["redis", "database"])
def test_in_other_backends(app: Any, database: str, results_server: Valkey, kind: str) -> None:
    """Whatever a backend makes of a value and of an exception, both come back as they were."""
    url = results_server.url if kind == "redis" else f"db+{database}"
    app.conf.result_backend = url.replace("db+postgresql:", "db+postgresql+psycopg:")
    app._backend_cache = app._local.backend = None
    good, bad = work.echo.enqueue({"a": ["é", None, 1.5]}), work.fail.enqueue("no")
    for result in (good, bad):
        carry_out(app, result.id)
        result.refresh()

    assert good.return_value == {"a": ["é", None, 1.5]}
    assert (good.attempts, good.worker_ids) == (1, ["celery@here"])
    assert [error.exception_class for error in bad.errors] == [work.Rejected]
    assert bad.errors[0].traceback.endswith("Rejected: no\n")
    assert bad.started_at <= bad.finished_at


@pytest.mark.parametrize("backend", [None, "rpc://", "cache+memory://"])
def test_without_results(app: Any, backend: str | None) -> None:
    """The flag says so, the error says what to set, and tasks run all the same."""
    app.conf.result_backend = backend
    app._backend_cache = app._local.backend = None
    result = work.add.enqueue(1)

    assert carry_out(app, result.id)
    assert not task_backends["default"].supports_get_result
    with pytest.raises(NotImplementedError, match="Set result_backend"):
        result.refresh()


def test_of_a_role_that_may_only_insert(app: Any, database: str) -> None:
    """It enqueues; to read what waits it needs another right, which the error names."""
    grant(database)
    role = f"web_{uuid4().hex[:8]}"
    connection = connections["default"]
    with psycopg.connect(database) as admin:
        admin.execute(SQL("CREATE ROLE {} IN ROLE outbox_producer").format(Identifier(role)))
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {role}")
    result = work.add.enqueue(1)
    with pytest.raises(UnreadableOutbox, match="GRANT outbox_reader"):
        result.refresh()

    with psycopg.connect(database) as admin:
        admin.execute(SQL("GRANT outbox_reader TO {}").format(Identifier(role)))
    result.refresh()

    assert result.status == TaskResultStatus.READY
