"""One message, however often it is delivered, has its effects once."""

from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.exceptions import Ignore, Reject, Retry
from psycopg.rows import dict_row

from celery_inbox import MessageIdReused, ResultNotJSON, idempotent
from tests.worker.ledger import Deliver, Ledger

NOTE = "INSERT INTO effect (note) VALUES (%s)"


def test_a_duplicate_returns_the_first_result_without_running(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """The second delivery of a message answers like the first and changes nothing."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order_id: Any) -> Any:
        conn.execute(NOTE, (f"charged {order_id}",))
        return {"order": order_id, "amount": 12.5}

    first = deliver(charge, 7)
    second = deliver(charge, 7)

    assert first == second == {"order": 7, "amount": 12.5}
    assert ledger.effects() == ["charged 7"]


def test_messages_with_different_ids_both_run(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Equal arguments do not make a duplicate: the message id does."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order_id: Any) -> Any:
        conn.execute(NOTE, (self.request.id,))

    deliver(charge, 7, id="a")
    deliver(charge, 7, id="b")

    assert ledger.effects() == ["a", "b"]


def test_a_task_that_returns_nothing_is_remembered_too(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """None is a result like any other."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))

    assert deliver(charge) is None
    assert deliver(charge) is None
    assert ledger.effects() == ["charged"]


def test_a_task_that_raises_leaves_no_trace_and_can_run_again(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """An error rolls back the effects and the inbox row together."""
    broken = [True]

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        if broken.pop():
            raise LookupError("no such card")

    with pytest.raises(LookupError, match="no such card"):
        deliver(charge)
    assert ledger.effects() == []
    assert ledger.inbox() == []

    broken.append(False)
    deliver(charge)
    assert ledger.effects() == ["charged"]


def test_retry_rolls_back_and_its_message_is_sent(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """retry() keeps its meaning: nothing was done, and the same id comes again."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, (f"attempt {self.request.retries}",))
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return "done"

    with pytest.raises(Retry):
        deliver(charge)
    assert ledger.effects() == []
    assert sent_ids(app) == ["message-1"]

    assert deliver(charge, retries=1) == "done"
    assert deliver(charge, retries=0) == "done"
    assert ledger.effects() == ["attempt 1"]


def test_replace_commits_and_its_successor_is_no_duplicate(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """A task that replaces itself passes its id on; both runs count, each once."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, rest: Any) -> Any:
        conn.execute(NOTE, (f"rest {rest}",))
        if rest:
            raise self.replace(charge.s(rest - 1))
        return "charged"

    with pytest.raises(Ignore):
        deliver(charge, 1)
    with pytest.raises(Ignore):
        deliver(charge, 1)
    assert sent_ids(app) == ["message-1"]

    assert deliver(charge, 0, replaced_task_nesting=1) == "charged"
    assert deliver(charge, 0, replaced_task_nesting=1) == "charged"
    assert ledger.effects() == ["rest 1", "rest 0"]


def test_two_tasks_sharing_an_id_are_refused(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """The second task is neither run nor answered with the other's result."""

    @app.task(bind=True, name="charge")
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        return "charged"

    @app.task(bind=True, name="refund")
    @idempotent(ledger.connect)
    def refund(self: Any, conn: Any) -> Any:
        return "refunded"

    deliver(charge)
    with pytest.raises(MessageIdReused, match="'message-1' was processed as task 'charge'"):
        deliver(refund)


@pytest.mark.parametrize("result", [object(), {1, 2}, float("nan")], ids=["object", "set", "nan"])
def test_a_result_json_cannot_hold_is_refused_before_commit(
    app: Celery, ledger: Ledger, deliver: Deliver, result: Any
) -> None:
    """Nothing half-done stays behind, and the error names the task and the type."""

    @app.task(bind=True, name="charge")
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        return result

    with pytest.raises(ResultNotJSON, match=f"charge returned {type(result).__qualname__}"):
        deliver(charge)
    assert ledger.effects() == []
    assert ledger.inbox() == []


def test_an_error_the_body_swallowed_cannot_pass_for_success(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """A transaction the body broke and hid fails instead of committing nothing silently."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        try:
            conn.execute("SELECT 1/0")
        except psycopg.errors.DivisionByZero:
            return "fine"

    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        deliver(charge)
    assert ledger.inbox() == []


def test_the_body_cannot_commit_half_of_its_work(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """A commit inside the body is refused: effects and inbox row must stay one."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        conn.commit()

    with pytest.raises(psycopg.ProgrammingError, match="commit"):
        deliver(charge)
    assert ledger.effects() == []


def test_called_as_a_function_a_task_runs_each_time_in_a_transaction(
    app: Celery, ledger: Ledger
) -> None:
    """Without a message there is no duplicate: direct and eager calls always run."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any, order_id: Any) -> Any:
        conn.execute(NOTE, (f"charged {order_id}",))
        return order_id

    assert charge(1) == 1
    assert charge.apply((2,)).get() == 2
    assert ledger.effects() == ["charged 1", "charged 2"]
    assert ledger.inbox() == []


def test_the_applications_row_factory_is_left_alone(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """The body gets its connection as connect() made it, and the inbox works beside it."""

    @app.task(bind=True)
    @idempotent(lambda: psycopg.connect(ledger.dsn, row_factory=dict_row))
    def charge(self: Any, conn: Any) -> Any:
        return conn.execute("SELECT 1 AS one").fetchone()

    assert deliver(charge) == {"one": 1}
    assert deliver(charge) == {"one": 1}


def test_the_deadline_of_the_inbox_is_not_the_bodys(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """The body sees the lock_timeout that its own connection came with."""

    @app.task(bind=True)
    @idempotent(lambda: psycopg.connect(ledger.dsn, options="-c lock_timeout=1234"))
    def charge(self: Any, conn: Any) -> Any:
        return conn.execute("SHOW lock_timeout").fetchone()[0]

    assert deliver(charge) == "1234ms"


def test_tasks_sent_inside_join_the_transaction(ledger: Ledger, deliver: Deliver) -> None:
    """An app with an outbox gets the task's connection for as long as the body runs."""
    joined: list[Any] = []

    class Outbox:
        def using(self, target: Any) -> Any:
            joined.append(target)
            return psycopg.Connection.transaction(target)

    app = Celery("ledger", broker="memory://", set_as_current=False)
    vars(app)["outbox"] = Outbox()

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        assert joined == [conn]

    deliver(charge)
    deliver(charge)
    assert len(joined) == 1


def test_a_rejected_message_keeps_its_rejection(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """Reject rolls back and reaches the worker as it is."""

    @app.task(bind=True)
    @idempotent(ledger.connect)
    def charge(self: Any, conn: Any) -> Any:
        conn.execute(NOTE, ("charged",))
        raise Reject("not mine", requeue=False)

    with pytest.raises(Reject, match="not mine"):
        deliver(charge)
    assert ledger.effects() == []


def sent_ids(app: Celery) -> list[str]:
    """Ids of the messages waiting in the app's queue; takes them."""
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        return [queue.get_nowait().headers["id"] for _ in range(queue.qsize())]


def test_runs_beside_a_run_are_told_apart(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """Each retry(throw=False) of a run is a run of its own, and so are theirs; each runs once."""

    @app.task(bind=True, name="split")
    @idempotent(ledger.connect)
    def split(self: Any, conn: Any, note: str, *parts: int) -> None:
        conn.execute("INSERT INTO effect (note) VALUES (%s)", [note])
        for part in range(parts[0] if parts else 0):
            self.retry(args=(f"{note}{part}", *parts[1:]), countdown=0, throw=False)

    deliver(split, "-", 3, 2, 1)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(app.conf.task_default_queue)
        while queue.qsize():
            message = queue.get(timeout=1)
            message.ack()
            (args, _, _), headers = message.payload, message.headers
            known = {name: headers[name] for name in ("retries", "celery_inbox_run")}
            deliver(split, *args, **known)
            before = ledger.effects()
            if len(args) == 1:
                deliver(split, *args, **known)
                assert ledger.effects() == before

    pairs = [f"-{first}{second}" for first in range(3) for second in range(2)]
    assert ledger.effects() == ["-", "-0", "-1", "-2", *pairs, *(f"{pair}0" for pair in pairs)]
