"""However an eager task ends, waiting for a commit changes nothing of that."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from celery import chain, group
from celery.exceptions import Ignore, Reject

from celery_outbox import OutboxCelery
from tests.producer.conftest import Connection, make_shop

Ran = list[Any]


def make_app(ran: Ran, *, propagates: bool) -> OutboxCelery:
    """Return an app whose tasks end in every way, and note that they ran."""
    app = make_shop(None, task_always_eager=True, task_eager_propagates=propagates).app

    @app.task(name="retried", bind=True, shared=False)
    def retried(self: Any) -> str:
        ran.append(("retried", self.request.retries))
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return "done"

    @app.task(name="replaced", bind=True, shared=False)
    def replaced(self: Any) -> None:
        ran.append("replaced")
        raise self.replace(app.tasks["well"].si(7))

    @app.task(name="well", shared=False)
    def well(what: Any) -> Any:
        ran.append(("well", what))
        return what

    def raising(name: str, error: Exception) -> None:
        @app.task(name=name, shared=False)
        def task() -> None:
            ran.append(name)
            raise error

    raising("ignored", Ignore())
    raising("rejected", Reject("no"))
    raising("failed", ValueError("no"))
    return app


SENDS: Final[dict[str, Callable[[Any], Any]]] = {
    "retried": lambda t: t["retried"].delay(),
    "replaced": lambda t: t["replaced"].delay(),
    "ignored": lambda t: t["ignored"].delay(),
    "rejected": lambda t: t["rejected"].delay(),
    "failed": lambda t: t["failed"].delay(),
    "an errback": lambda t: t["failed"].apply_async(link_error=t["well"].si(5)),
    "links": lambda t: t["well"].apply_async((1,), link=[t["well"].s(), group(t["well"].si(2))]),
    "ignored in a chain": lambda t: chain(t["well"].si(1), t["ignored"].si(), t["well"].si(2))(),
    "retried in a chain": lambda t: chain(t["retried"].si(), t["well"].s())(),
    "replaced in a chain": lambda t: chain(t["replaced"].si(), t["well"].s())(),
    "all in a group": lambda t: group(
        t[name].si() for name in ("retried", "replaced", "ignored", "rejected", "failed")
    )(),
}


def came_to(send: Callable[[], Any], ran: Ran) -> tuple[Any, ...]:
    """What ran, and what its result or error is."""
    ran.clear()
    try:
        sent = send()
    except Exception as error:
        return type(error), [*ran]
    results = getattr(sent, "results", [sent])
    return [(each.state, repr(each.get(propagate=False))) for each in results], [*ran]


@pytest.mark.parametrize("propagates", [False, True])
@pytest.mark.parametrize("name", SENDS)
def test_is_as_in_plain_celery(connection: Connection, name: str, propagates: bool) -> None:
    """Errors come out where the block ends."""
    ran: Ran = []
    app = make_app(ran, propagates=propagates)
    connection.rollback()

    def plain() -> Any:
        return SENDS[name](app.tasks)

    def held() -> Any:
        with app.outbox.transaction(connection):
            sent = plain()
            assert ran == []
        return sent

    assert came_to(held, ran) == came_to(plain, ran)
