"""OutboxCelery is Celery: it pickles, subclasses, and can be made of an existing app."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, Task
from celery.local import Proxy
from werkzeug.local import LocalProxy

from celery_outbox import OutboxCelery, install
from tests.producer.conftest import Connection, Stored


class House(Celery):
    """A subclass some company made of Celery."""

    def gen_task_name(self, name: str, module: str) -> str:  # noqa: ARG002 - as Celery calls it
        """Name tasks in its own way."""
        return f"house.{name}"


def house() -> House:
    """Return an app as somebody else's code would."""
    return House("house", broker="amqp://", set_as_current=False, result_backend="redis://h:1")


@pytest.mark.parametrize("kind", [Celery, House])
@pytest.mark.parametrize("used", [False, True])
def test_install(kind: type[Celery], used: bool, connection: Connection, stored: Stored) -> None:
    """Tasks registered before are captured, whether or not the app was used before."""
    app = kind("theirs", broker="amqp://127.0.0.1:1//", set_as_current=False, backend="rpc://")

    @app.task(shared=False)
    def greet(name: str) -> str:
        return f"hello {name}"

    if used:
        assert app.amqp.queues
        assert app.backend
    ours = install(app)
    with connection, ours.outbox.using(connection):
        greet.delay("anna")

    assert ours is app
    assert isinstance(app, kind)
    assert install(app) is app
    assert stored.args() == ["anna"]


@pytest.mark.parametrize("make", [lambda: OutboxCelery("shop"), lambda: install(house())])
def test_pickles(make: Any, connection: Connection, stored: Stored) -> None:
    """A copy made by pickle, as a spawned pool makes it, still goes through the outbox."""
    app = pickle.loads(pickle.dumps(make()))
    with connection, app.outbox.using(connection):
        app.send_task("any.task", (1,))

    assert isinstance(app, OutboxCelery)
    assert stored.args() == [1]


PROXIES: dict[str, Callable[[Celery], Any]] = {
    "celery": lambda app: Proxy(lambda: app),
    "werkzeug": lambda app: LocalProxy(lambda: app),
    "wrapt": lambda app: Wrapper(app),
    "several": lambda app: Wrapper(LocalProxy(lambda: app)),
}


class Wrapper:
    """As wrapt's ObjectProxy: it passes for what it wraps."""

    def __init__(self, wrapped: Any) -> None:
        self.__dict__["__wrapped__"] = wrapped

    @property  # type: ignore[misc]  # as wrapt does
    def __class__(self) -> Any:
        """Return that of what is wrapped."""
        return self.__wrapped__.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["__wrapped__"], name)


@pytest.mark.parametrize("proxy", PROXIES)
def test_install_on_a_proxy(proxy: str, connection: Connection, stored: Stored) -> None:
    """The app behind it is changed and returned, as `install(celery.current_app)` wants it."""
    app = Celery("theirs", broker="amqp://127.0.0.1:1//", set_as_current=False)
    ours = install(PROXIES[proxy](app))
    assert ours is app
    assert install(PROXIES[proxy](app)) is app
    with connection, ours.outbox.using(connection):
        app.send_task("any.task", (1,))

    assert stored.args() == [1]


def test_install_on_something_else() -> None:
    """What is no app is refused by its kind."""
    with pytest.raises(TypeError, match="takes a Celery app, not str"):
        install("app")  # type: ignore[arg-type]  # the mistake


def test_tasks_are_djangos_in_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every Celery: `delay_on_commit` is there, unless the app has a task class of its own."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.producer.conftest")
    app = OutboxCelery("shop", set_as_current=False)

    @app.task(shared=False)
    def greet() -> None: ...

    task: Any = greet
    assert task.delay_on_commit
    custom: Any = OutboxCelery("own", set_as_current=False, task_cls="tests.producer.test_app:Own")
    assert not hasattr(custom.Task, "delay_on_commit")


class Own(Task):  # type: ignore[type-arg]  # as users write it
    """A task class of one's own."""


def test_a_class_of_ones_own(connection: Connection, stored: Stored) -> None:
    """OutboxCelery can be subclassed as Celery can."""

    class Mine(OutboxCelery):
        task_cls = "celery.app.task:Task"

    app = Mine("mine", set_as_current=False)
    with connection, app.outbox.using(connection):
        app.send_task("any.task", (1,))

    assert stored.args() == [1]


def test_a_second_app(connection: Connection, stored: Stored) -> None:
    """A block is of the process, not of one app: tasks of another app join it as well."""
    first = OutboxCelery("first", set_as_current=False)
    second = OutboxCelery("second", set_as_current=False)
    with connection, first.outbox.using(connection):
        second.send_task("any.task", (1,))

    assert stored.args() == [1]
