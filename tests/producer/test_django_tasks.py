"""What of Django's tasks holds on every Django; the rest is in tests/django_tasks."""

from types import SimpleNamespace
from typing import Any

import django  # type: ignore[import-untyped]  # Django ships no types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Queue

from celery_outbox import OutboxCelery
from celery_outbox.django import tasks
from celery_outbox.django.tasks.delivery import (
    REDIS_STEPS,
    amqp_priority,
    priority_for,
    queue_for,
    redis_priority,
)

PRIORITIES = st.integers(-100, 100)


@pytest.mark.skipif(django.VERSION >= (6, 0), reason="this Django has tasks")
def test_an_older_django_is_told_so() -> None:
    """A worker's autodiscovery may import the module; who asks for the backend learns why not."""
    with pytest.raises(ImportError, match=r"needs Django 6\.0 or newer"):
        _ = tasks.OutboxBackend
    with pytest.raises(AttributeError, match="has no attribute 'Outbox'"):
        _ = tasks.Outbox


@given(PRIORITIES, PRIORITIES, st.integers(1, 255))
def test_the_order_of_priorities_is_kept(one: int, other: int, highest: int) -> None:
    """More is never less urgent, the extremes are the queue's, and 0 has others on both sides."""
    low, high = sorted((one, other))
    assert amqp_priority(low, highest) <= amqp_priority(high, highest)
    assert (amqp_priority(-100, highest), amqp_priority(100, highest)) == (0, highest)
    assert amqp_priority(0, highest) < amqp_priority(1, highest)
    assert highest == 1 or amqp_priority(-1, highest) < amqp_priority(0, highest)


@given(PRIORITIES, PRIORITIES)
def test_redis_counts_the_other_way(one: int, other: int) -> None:
    """There the lowest of the steps is consumed first."""
    low, high = sorted((one, other))
    assert redis_priority(low, REDIS_STEPS) >= redis_priority(high, REDIS_STEPS)
    assert {redis_priority(n, REDIS_STEPS) for n in (-100, 0, 1, 100)} == {9, 6, 3, 0}


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({}, (0, 4, 9)),
        ({"task_queue_max_priority": 20}, (0, 10, 20)),
        ({"task_queues": [Queue("mail", max_priority=3)]}, (0, 1, 3)),
        ({"task_queues": [Queue("mail", queue_arguments={"x-max-priority": 5})]}, (0, 2, 5)),
        ({"task_default_priority": 6}, (0, 6, 9)),
        ({"broker_url": "redis://localhost/0"}, (9, 6, 0)),
        ({"broker_url": "rediss://a;rediss://b", "task_default_priority": 3}, (9, 3, 0)),
        (
            {
                "broker_url": "sentinel://localhost",
                "broker_transport_options": {"priority_steps": [0, 5]},
            },
            (5, 5, 0),
        ),
    ],
)
def test_priorities_are_the_brokers(
    configuration: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    """As far as Celery's configuration says what the broker is, and the queue."""
    app = OutboxCelery("shop", set_as_current=False)
    app.conf.update(configuration)

    assert tuple(priority_for(app, n, "mail") for n in (-100, 0, 100)) == expected


def test_the_default_queue_is_celerys() -> None:
    """Which every worker consumes; unless one that is called `default` is Celery's as well."""
    conf = SimpleNamespace(task_default_queue="celery", task_queues=None)
    app = SimpleNamespace(conf=conf)
    assert (queue_for(app, "default"), queue_for(app, "mail")) == ("celery", "mail")

    conf.task_queues = [Queue("default")]
    assert queue_for(app, "default") == "default"
