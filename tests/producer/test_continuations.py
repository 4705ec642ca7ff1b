"""Whatever follows a task is known as that, in every nesting, with and without a database."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from billiard.exceptions import TimeLimitExceeded
from celery import chain, chord, group, signature
from celery.app.task import Context

from celery_outbox import NoTransaction
from celery_outbox.dispatch import dispatch_of
from tests.producer.conftest import Shop, Stored, make_shop
from tests.producer.test_patience import NOWHERE, on_first_pause
from tests.producer.test_worker import arrived, deliver

Follow = Callable[[Shop], Any]

#: What may follow a task that returned 1, and how many tasks are sent for it at once.
FOLLOWERS: dict[str, tuple[Follow, int]] = {
    "task": (lambda s: s.add.s(1), 1),
    "chain": (lambda s: s.add.s(1) | s.add.s(2), 1),
    "chain of one": (lambda s: chain(s.add.s(1)), 1),
    "chain of chains": (lambda s: chain(chain(s.add.s(1), s.add.s(2)), s.add.s(3)), 1),
    "group": (lambda s: group(s.add.s(1), s.add.s(2)), 2),
    "group of chains": (lambda s: group(s.add.s(1) | s.add.s(2), s.add.s(3) | s.add.s(4)), 2),
    "group in a group": (lambda s: group(group(s.add.s(1) | s.add.s(2)), s.add.s(3)), 2),
    "chord": (lambda s: chord([s.add.s(1), s.add.s(2)], s.total.s()), 2),
    "chord of chains": (lambda s: chord([s.add.s(1) | s.add.s(2), s.add.s(3)], s.total.s()), 2),
    "chord in a chain": (lambda s: group(s.add.s(1), s.add.s(2)) | s.total.s() | s.add.s(9), 2),
    "chunks": (lambda s: s.add.chunks([(1, 1), (2, 2)], 1).group(), 2),
    "starmap": (lambda s: s.add.starmap([(1, 1)]), 1),
}
#: What may follow one that failed. Celery runs a task that takes more than an id itself.
AFTER_FAILURE: dict[str, tuple[Follow, int]] = {
    "task": (lambda s: s.app.signature("elsewhere"), 1),
    "chain": (lambda s: s.add.si(1, 1) | s.add.s(2), 1),
    "chain with a group": (lambda s: s.add.si(1, 1) | group(s.add.s(2), s.add.s(3)), 1),
    "group": (lambda s: group(s.add.si(1, 1), s.add.si(2, 2)), 2),
    "group of chains": (lambda s: group(s.add.si(1, 1) | s.add.s(2), s.add.si(3, 3)), 2),
    "chord": (lambda s: chord([s.add.si(1, 1), s.add.si(2, 2)], s.total.s()), 2),
}
follower = pytest.mark.parametrize("kind", FOLLOWERS)


def as_link(shop: Shop, what: Any) -> tuple[str, dict[str, Any]]:
    """Return a task, and a request in which it is followed by a callback."""
    return "shop.add", {"callbacks": [what]}


def as_second_link(shop: Shop, what: Any) -> tuple[str, dict[str, Any]]:
    """Return one with two callbacks, which Celery makes a group of."""
    return "shop.add", {"callbacks": [what, what.clone()]}


def as_step(shop: Shop, what: Any) -> tuple[str, dict[str, Any]]:
    """Return one that is a step of a chain."""
    return "shop.add", {"chain": [what]}


followed = pytest.mark.parametrize("follow", [as_link, as_second_link, as_step])


def run(shop: Shop, follow: Any, kind: str) -> tuple[str, int]:
    """Run a task that something follows; its state, and how many tasks that is."""
    make, count = FOLLOWERS[kind]
    # As it comes from the message, and not as the objects that were sent.
    name, request = follow(shop, signature(dict(make(shop)), app=shop.app))
    state, _ = deliver(shop.app, name, 1, 0, **request)
    return state, count * 2 if follow is as_second_link else count


def fail(shop: Shop, kind: str) -> tuple[str, int]:
    """Run a task that fails, whose failure something follows."""

    @shop.app.task(name="shop.fail", shared=False)
    def fail() -> None:
        raise ValueError

    make, count = AFTER_FAILURE[kind]
    state, _ = deliver(shop.app, "shop.fail", errbacks=[dict(make(shop))])
    return state, count


@follower
@followed
def test_without_a_database(plain_broker: str, follow: Any, kind: str) -> None:
    """The worker sends it to the broker, as Celery does."""
    shop = make_shop(plain_broker, result_backend="cache+memory://")
    state, count = run(shop, follow, kind)

    assert state == "SUCCESS"
    assert len(arrived(plain_broker)) == count


@pytest.mark.parametrize("kind", AFTER_FAILURE)
def test_errbacks_without_a_database(plain_broker: str, kind: str) -> None:
    """So it does with what follows a failure."""
    shop = make_shop(plain_broker, result_backend="cache+memory://")
    state, count = fail(shop, kind)

    assert state == "FAILURE"
    assert len(arrived(plain_broker)) == count


@pytest.fixture
def outage(trap: str, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """The app of a worker whose database comes back once the worker has noticed it is away."""
    shop = make_shop(trap, result_backend="cache+memory://", outbox_database_url=NOWHERE)
    pauses = on_first_pause(monkeypatch, lambda: shop.app.conf.update(outbox_database_url=database))
    yield shop
    assert pauses


@follower
@followed
def test_through_an_outage(outage: Shop, stored: Stored, follow: Any, kind: str) -> None:
    """Every part of it waits for a database that is away."""
    state, count = run(outage, follow, kind)

    assert state == "SUCCESS"
    assert len(stored.rows()) == count


@pytest.mark.parametrize("kind", AFTER_FAILURE)
def test_errbacks_through_an_outage(outage: Shop, stored: Stored, kind: str) -> None:
    """So does what follows a failure."""
    state, count = fail(outage, kind)

    assert state == "FAILURE"
    assert len(stored.rows()) == count


@pytest.mark.parametrize("kind", AFTER_FAILURE)
def test_errbacks_of_the_main_process(outage: Shop, stored: Stored, kind: str) -> None:
    """They wait too where no child can tell of the failure: it was killed, or took too long."""
    dispatch_of(outage.app).begin_work()
    make, count = AFTER_FAILURE[kind]
    request = Context({"id": "lost", "errbacks": [dict(make(outage))], "delivery_info": {}})
    outage.app.backend.mark_as_failure("lost", TimeLimitExceeded(1), request=request)

    assert len(stored.rows()) == count


@follower
def test_from_a_web_process(plain_broker: str, kind: str) -> None:
    """There nothing follows a task: a parent that is named makes no difference."""
    shop = make_shop(plain_broker, result_backend="cache+memory://")
    make, _ = FOLLOWERS[kind]
    with pytest.raises(NoTransaction):
        make(shop).apply_async((1,), parent_id="p")

    assert arrived(plain_broker) == []
