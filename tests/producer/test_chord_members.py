"""What a task adds to its chord is counted there if it was sent, and only then: the chord ends."""

import logging
import os
import signal
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import EncodeError, OperationalError

from celery_outbox import OutboxCelery, UnpublishableMessage
from servers import Valkey
from tests.fixtures.valkey import OwnValkey
from tests.producer.conftest import Shop, Stored, make_shop
from tests.producer.test_worker import deliver, owned, using

NOWHERE = "postgresql://127.0.0.1:1/nowhere"
#: What makes a send fail -> the arguments and options of what is added.
UNSENDABLE: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "arguments": ((object(), 1), {}),
    "an option": ((1, 1), {"dedup_key": "k"}),
    "a header": ((1, 1), {"headers": {"h": object()}}),
    "a size": (("x" * 300, 1), {}),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon."""
    monkeypatch.setattr("celery_outbox.worker.PATIENCE", 0.0)


@pytest.fixture
def growing_shop(trap: str, database: str, valkey_url: str) -> Shop:
    """The app of a worker that knows the outbox database, and whose results are in Redis."""
    changes = {"result_backend": valkey_url, "outbox_database_url": database}
    return make_shop(trap, outbox_max_body=200, **changes)


def growing(app: OutboxCelery, body: Callable[[Any], object], **options: Any) -> None:
    """Register a task that does what is given, with the task as its argument."""

    @app.task(name="shop.growing", shared=False, bind=True, **options)
    def growing(self: Any) -> None:
        body(self)


def run(shop: Shop, **request: Any) -> Any:
    """Deliver the task as the only one in the header of a chord whose body is `shop.total`."""
    shop.app.backend.set_chord_size("g", 1)
    chord = dict(shop.total.s())
    return deliver(shop.app, "shop.growing", group="g", chord=chord, root_id="r", **request)


def added(shop: Shop) -> int:
    """Return how many tasks the chord waits for besides those it was sent with."""
    backend: Any = shop.app.backend
    return int(backend.client.get(backend.get_key_for_group("g", ".t")) or 0)


def send(task: Any, signature: Any, *, lazy: bool) -> None:
    """Add a signature to the chord of a task, and send it."""
    member = task.add_to_chord(signature, lazy=lazy)
    if lazy:
        member.delay()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("why", UNSENDABLE)
def test_what_cannot_be_sent(growing_shop: Shop, stored: Stored, why: str, *, lazy: bool) -> None:
    """The task goes on without it, and so does its chord."""
    shop, (args, options) = growing_shop, UNSENDABLE[why]

    def body(task: Any) -> None:
        with pytest.raises(Exception, match="add"):
            send(task, shop.add.s(*args).set(**options), lazy=lazy)

    growing(shop.app, body)
    state, _ = run(shop)

    assert state == "SUCCESS"
    assert [row.task for row in stored.rows()] == ["shop.total"]


def test_the_failure_of_a_task_that_could_not_add(growing_shop: Shop, stored: Stored) -> None:
    """It is the failure of its chord, and does not wait for what was never sent."""
    shop = growing_shop
    growing(shop.app, lambda task: task.add_to_chord(shop.add.s(object(), 1)))
    shop.app.backend.set_chord_size("g", 1)
    chord = dict(shop.total.s().set(task_id="body"))
    deliver(shop.app, "shop.growing", group="g", chord=chord, root_id="r")

    assert shop.app.AsyncResult("body").state == "FAILURE"
    assert stored.rows() == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("block", [using, owned])
def test_an_outage_and_the_next_delivery(
    trap: str, database: str, valkey_url: str, stored: Stored, block: Any
) -> None:
    """The delivery goes back to its queue; run again, it adds one, and that is waited for."""
    shop = make_shop(trap, result_backend=valkey_url, outbox_database_url=NOWHERE)

    def body(task: Any) -> None:
        with psycopg.connect(database) as connection, block(task.app, connection):
            task.add_to_chord(task.app.tasks["shop.add"].s(1, 0))

    growing(shop.app, body, acks_late=True)
    state, _ = run(shop)
    assert state == "REJECTED"
    assert added(shop) == 0

    again = make_shop(trap, result_backend=valkey_url, outbox_database_url=database)
    growing(again.app, body, acks_late=True)
    run(again)
    assert added(again) == 1
    assert [row.task for row in stored.rows()] == ["shop.add"]


def test_a_time_limit_while_it_is_sent(
    growing_shop: Shop, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever breaks the send off: the message is not there, and not waited for."""

    def store(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    def limit(*_: Any) -> None:
        raise SoftTimeLimitExceeded

    before = signal.signal(signal.SIGUSR1, limit)
    growing(growing_shop.app, lambda task: task.add_to_chord(growing_shop.add.s(1, 0)))
    with monkeypatch.context() as patch:
        patch.setattr("celery_outbox.stores.database.Database.store_once", store)
        patch.setattr("celery.app.trace.report_internal_error", lambda *_: None)
        growing_shop.app.backend.set_chord_size("g", 2)
        deliver(growing_shop.app, "shop.growing", group="g", chord=dict(growing_shop.total.s()))
    signal.signal(signal.SIGUSR1, before)

    assert added(growing_shop) == 0
    assert stored.rows() == []


def test_a_worker_without_database_whose_broker_is_away(
    plain_broker: str, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is where the worker sends directly."""
    shop = make_shop(plain_broker, result_backend=valkey_url, task_publish_retry=False)
    monkeypatch.setattr("kombu.Producer._publish", Mock(side_effect=OperationalError))

    def body(task: Any) -> None:
        with pytest.raises(OperationalError):
            task.add_to_chord(shop.add.s(1, 0))

    growing(shop.app, body)
    shop.app.backend.set_chord_size("g", 2)
    state, _ = deliver(shop.app, "shop.growing", group="g", chord=dict(shop.total.s()))

    assert state == "SUCCESS"
    assert added(shop) == 0


def test_what_is_sent_after_a_failure_is_counted(growing_shop: Shop, stored: Stored) -> None:
    """Sent again, a member that could not be sent is counted again, once."""
    shop = growing_shop

    def body(task: Any) -> None:
        member = task.add_to_chord(shop.add.s(object(), 1), lazy=True)
        for _ in range(2):
            with pytest.raises(Exception, match="add"):
                member.delay()
            assert added(shop) == 0
        member.args = (1, 1)
        member.delay()

    growing(shop.app, body)
    run(shop)

    assert added(shop) == 1
    assert [row.task for row in stored.rows()] == ["shop.add"]


def test_what_runs_where_it_is_sent(growing_shop: Shop, stored: Stored) -> None:
    """An eager task tells no chord that it has ended: nobody waits for it."""
    shop = growing_shop

    def body(task: Any) -> None:
        shop.app.conf.task_always_eager = True
        assert task.add_to_chord(shop.add.s(1, 1)).get(disable_sync_subtasks=False) == 2
        shop.app.conf.task_always_eager = False

    growing(shop.app, body)
    run(shop)

    assert [row.task for row in stored.rows()] == ["shop.total"]


def test_what_was_only_announced_is_counted(growing_shop: Shop) -> None:
    """With lazy=True somebody else may send it, of whom nobody here knows: as in Celery."""
    growing(growing_shop.app, lambda task: task.add_to_chord(growing_shop.add.s(1, 1), lazy=True))
    run(growing_shop)

    assert added(growing_shop) == 1


def test_a_count_that_cannot_be_taken_back(
    trap: str, database: str, own_valkey: OwnValkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The error of the send comes out, and the log says what waits."""
    server: Valkey = own_valkey()
    shop = make_shop(trap, result_backend=server.url, outbox_database_url=database)
    backend: Any = shop.app.backend
    count = backend.add_to_chord

    def count_and_die(group: str, result: Any) -> None:
        count(group, result)
        server.kill()

    def body(task: Any) -> None:
        with pytest.raises(UnpublishableMessage, match=r"shop\.add"):
            task.add_to_chord(shop.add.s(object(), 1))
        server.start()

    backend.add_to_chord = count_and_die
    growing(shop.app, body)
    with caplog.at_level(logging.ERROR, "celery_outbox"):
        state, _ = run(shop)

    assert state == "SUCCESS"
    assert "the chord waits for it (ConnectionError)" in caplog.text


def test_an_app_without_an_outbox_does_what_it_did(valkey_url: str) -> None:
    """Its count stays: this is Celery's."""
    plain: Any = Celery("p", broker="memory://", backend=valkey_url, set_as_current=False)

    def body(task: Any) -> None:
        with pytest.raises(EncodeError):
            task.add_to_chord(task.s(object()))

    growing(plain, body)
    plain.backend.set_chord_size("g", 2)
    deliver(plain, "shop.growing", group="g", chord=dict(plain.signature("shop.total")))

    assert int(plain.backend.client.get("celery-taskset-meta-g.t")) == 1
