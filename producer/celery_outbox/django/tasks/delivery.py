"""Where a Django task's message goes, in Celery's terms: its queue and its priority. Pure."""

from collections.abc import Sequence
from math import ceil
from typing import Any, Final

from kombu.utils.url import parse_url

#: The queue that Django's tasks are for unless they say otherwise.
DJANGO_DEFAULT: Final = "default"
#: The range of Django's priorities is from minus this to this.
EXTREME: Final = 100
#: AMQP's ten priorities, where no queue says how many it has.
DEFAULT_MAX: Final = 9
#: Where the transport is Redis, messages of each of these steps wait in a list of their own.
REDIS_STEPS: Final = (0, 3, 6, 9)
REDIS: Final = frozenset({"redis", "rediss", "sentinel", "valkey", "valkeys"})


def queue_for(app: Any, name: str) -> str:
    """Return Celery's name of a queue: Django's default is the one that every worker consumes.

    Unless Celery was told of a queue that is called so.
    """
    known = {queue.name for queue in app.conf.task_queues or () if hasattr(queue, "name")}
    return (
        str(app.conf.task_default_queue) if name == DJANGO_DEFAULT and name not in known else name
    )


def priority_for(app: Any, priority: int, queue: str) -> int:
    """Return the broker's priority for one of Django's (-100 to 100, more is sooner)."""
    default = app.conf.task_default_priority
    if _is_redis(app.conf.broker_write_url or app.conf.broker_url):
        options = app.conf.broker_transport_options or {}
        steps = sorted(options.get("priority_steps") or REDIS_STEPS)
        return redis_priority(priority, steps, default)
    return amqp_priority(priority, _max_priority(app, queue), default)


def amqp_priority(priority: int, highest: int, default: int | None = None) -> int:
    """Spread Django's priorities over 0 to `highest`; 0 becomes `default`, or the middle.

    Order is kept, and what is above or below 0 stays above or below, as far as there is room.
    """
    middle = highest // 2 if default is None else min(max(default, 0), highest)
    if priority > 0:
        return middle + ceil(priority * (highest - middle) / EXTREME)
    return middle - ceil(-priority * middle / EXTREME)


def redis_priority(priority: int, steps: Sequence[int], default: int | None = None) -> int:
    """Do the same for Redis, where the lowest step is the first to be consumed."""
    last = len(steps) - 1
    middle = None
    if default is not None:
        middle = last - max((i for i, step in enumerate(steps) if step <= default), default=0)
    return steps[last - amqp_priority(priority, last, middle)]


def _is_redis(url: Any) -> bool:
    first = url[0] if isinstance(url, list | tuple) and url else url
    return bool(first) and parse_url(str(first).partition(";")[0])["transport"] in REDIS


def _max_priority(app: Any, queue: str) -> int:
    """Return how high the priorities of a queue go, as far as Celery's configuration says."""
    found = app.amqp.queues.get(queue)
    arguments = getattr(found, "queue_arguments", None) or {}
    highest = (
        getattr(found, "max_priority", None)
        or arguments.get("x-max-priority")
        or app.conf.task_queue_max_priority
    )
    return DEFAULT_MAX if highest is None else int(highest)
