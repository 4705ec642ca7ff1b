"""Every send has one place in one table, which says where it goes."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.app.task import Context

from celery_outbox.decision import (
    TABLE,
    Destination,
    Origin,
    Process,
    Scope,
    destination,
    origin_of,
)

RUNNING = SimpleNamespace(name="shop.add", request=Context({"id": "own", "retries": 1}))


def task(task_id: str = "another", retries: int = 0, **headers: Any) -> Any:
    """Return as much of a task's message as tells who sends it."""
    facts = {"id": task_id, "retries": retries, "task": "shop.add", **headers}
    return SimpleNamespace(headers=facts, body=())


def test_every_case_is_in_the_table() -> None:
    """Nothing is left to fall through."""
    assert TABLE.keys() == {(origin, scope) for origin in Origin for scope in Scope}


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("has_database", [True, False])
def test_nothing_goes_around_the_outbox_from_users_code(scope: Scope, has_database: bool) -> None:
    """Never to the broker; without a transaction and a database it is refused."""
    where = destination(Origin.USER, scope, has_database=lambda: has_database)

    assert where is not Destination.BROKER
    assert (where is Destination.REFUSE) == (scope is Scope.NONE and not has_database)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("origin", [Origin.RETRY, Origin.REPLACEMENT])
def test_what_ends_a_task_outlives_its_transaction(origin: Origin, scope: Scope) -> None:
    """Unless that commits: then it is part of it."""
    where = destination(origin, scope, has_database=lambda: True)
    commits = (origin, scope) == (Origin.REPLACEMENT, Scope.COMMITTING)

    assert where is (Destination.JOIN if commits else Destination.STORE_APART)


@pytest.mark.parametrize("scope", Scope)
def test_what_a_chord_has_counted_outlives_every_transaction(scope: Scope) -> None:
    """The result backend waits for it, and takes no count back."""
    stored = destination(Origin.MEMBER, scope, has_database=lambda: True)
    sent = destination(Origin.MEMBER, scope, has_database=lambda: False)

    assert (stored, sent) == (Destination.STORE_APART, Destination.BROKER)


@pytest.mark.parametrize("message", [task("own", 2), task(replaced_task_nesting=1), task()])
def test_only_workers_send_what_is_not_users(message: Any) -> None:
    """In the web, or in a task that runs eagerly, everything is the user's."""
    assert origin_of(Process.OTHER, None, message, follows=True) is Origin.USER


ORIGINS: dict[str, tuple[Any, bool, Origin]] = {
    "another task": (task(), False, Origin.USER),
    "the task once more": (task("own", 1), False, Origin.USER),
    "its retry": (task("own", 2), False, Origin.RETRY),
    "its retry, with a parent": (task("own", 2), True, Origin.RETRY),
    "its replacement": (task("own", 1, replaced_task_nesting=1), False, Origin.REPLACEMENT),
    "what follows it": (task(), True, Origin.CONTINUATION),
}


@pytest.mark.parametrize("case", ORIGINS)
def test_who_sends_while_a_task_runs(case: str) -> None:
    """A retry has the running task's id and one more attempt; a replacement is nested deeper."""
    message, follows, origin = ORIGINS[case]

    assert origin_of(Process.TASK, RUNNING, message, follows=follows) is origin


IN_CHORD = Context({"id": "own", "group": "g", "chord": {"task": "shop.total"}})
IN_GROUP = Context({"id": "own", "group": "g"})


@pytest.mark.parametrize(
    ("request_", "message", "follows", "origin"),
    [
        (IN_CHORD, task(group="g"), False, Origin.MEMBER),
        (IN_CHORD, task(group="g", replaced_task_nesting=1), False, Origin.REPLACEMENT),
        (IN_CHORD, task(group="g"), True, Origin.CONTINUATION),
        (IN_CHORD, task(group="another"), False, Origin.USER),
        (IN_CHORD, task(), False, Origin.USER),
        (IN_GROUP, task(group="g"), False, Origin.USER),
    ],
)
def test_who_is_added_to_a_chord(
    request_: Context, message: Any, follows: bool, origin: Origin
) -> None:
    """A task of the chord that the running one is in, and nothing else."""
    running = SimpleNamespace(name="shop.add", request=request_)

    assert origin_of(Process.TASK, running, message, follows=follows) is origin


@pytest.mark.parametrize("name", ["celery.chord_unlock", "celery.group"])
def test_what_celerys_own_tasks_send(name: str) -> None:
    """Those send nothing but what continues a canvas."""
    running = SimpleNamespace(name=name, request=Context({"id": "own"}))

    assert origin_of(Process.TASK, running, task(), follows=False) is Origin.CONTINUATION
