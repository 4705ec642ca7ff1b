"""What pytest finds in `celery_outbox.testing`: its fixtures."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

import pytest
from celery import Celery, current_app

from celery_outbox.testing.messages import messages_of
from celery_outbox.testing.tester import AsyncOutboxTester, OutboxTest, OutboxTester


@pytest.fixture
def outbox_app() -> Celery:
    """Return the app whose outbox is tested: the current one. Override it to name another."""
    return current_app


@pytest.fixture
def outbox_target() -> object | None:
    """Return where tests look into the outbox: in Django, its own database.

    Override it to return the session or connection of your tests.
    """
    return None


@pytest.fixture
def outbox_results() -> Literal["memory", "app"]:
    """Return where results of tasks are kept: in memory. `"app"`: in the app's own backend."""
    return "memory"


@pytest.fixture(name="outbox")
def outbox_fixture(
    outbox_app: Celery, outbox_target: object | None, outbox_results: Literal["memory", "app"]
) -> Iterator[OutboxTester | AsyncOutboxTester]:
    """Be the outbox of one test: claim what was sent, and run it."""
    with OutboxTest(outbox_app, outbox_target, results=outbox_results) as tester:
        yield tester


@pytest.fixture
def outbox_messages(outbox_app: Celery) -> Callable[..., Any]:
    """List what a transaction would send: `outbox_messages(session)`, oldest first.

    Outside of one: what waits to be sent. Takes what `using` takes, to be awaited where that is
    asynchronous; in Django, nothing.
    """
    return partial(_messages, outbox_app)


def _messages(app: Celery, target: object | None = None) -> Any:
    return messages_of(app, target)
