"""Result backends neither fail nor delay a send: what they do then is left out, or done later.

Without this a Redis that is away would fail `.delay()`, or hold up a group for a minute, and the
RPC backend would connect to the broker. Only a chord cannot do without its backend, which counts.
"""

from contextlib import suppress
from typing import Any
from weakref import WeakSet

import celery
from kombu import Producer

from celery_outbox.capture import CapturingProducer
from celery_outbox.worker import continuing_canvas


def keep_quiet(backend: Any) -> Any:
    """Return the same result backend, with some of its methods replaced."""
    _skip_task_call(backend)
    _put_off_groups(backend)
    _mark_chord_bodies(backend)
    _unsubscribe_once(backend)
    return backend


def _skip_task_call(backend: Any) -> None:
    """Leave out what a backend does as a task is sent; get() does the same again."""
    original = backend.on_task_call

    def on_task_call(producer: Producer, task_id: str) -> Any:
        if not isinstance(producer, CapturingProducer):
            return original(producer, task_id)
        return None

    backend.on_task_call = on_task_call


def _put_off_groups(backend: Any) -> None:
    """Subscribe to the results of a group when somebody waits for them, not as it is sent."""
    add, iterate = backend.add_pending_result, backend.iter_native
    put_off: WeakSet[Any] = WeakSet()

    def add_pending_result(result: Any, weak: bool = False, **kwargs: Any) -> Any:
        if not weak:
            return add(result, **kwargs)
        put_off.add(result)  # weak: a group, which only notes whom to tell
        return result

    def iter_native(*args: Any, **kwargs: Any) -> Any:
        with suppress(KeyError):  # none left
            while True:
                add(put_off.pop(), weak=True)
        return iterate(*args, **kwargs)

    backend.add_pending_result, backend.iter_native = add_pending_result, iter_native


def _mark_chord_bodies(backend: Any) -> None:
    """Mark the body that is sent when the last task of a chord returns as part of its canvas."""
    original = backend.on_chord_part_return

    def on_chord_part_return(*args: Any, **kwargs: Any) -> Any:
        with continuing_canvas():
            return original(*args, **kwargs)

    backend.on_chord_part_return = on_chord_part_return


def _unsubscribe_once(backend: Any) -> None:
    """Leave a result alone that was read: collecting it would unsubscribe from it again.

    Celery before 5.7 does so wherever the collector happens to run. That takes 20 s where Redis is
    away, and for ever where it interrupts another subscription (celery #10477).
    """
    consumer: Any = getattr(backend, "result_consumer", None)
    if celery.VERSION[:2] >= (5, 7) or not hasattr(consumer, "subscribed_to"):
        return
    original = consumer.cancel_for

    def cancel_for(task_id: str) -> None:
        if backend.get_key_for_task(task_id) in consumer.subscribed_to:
            original(task_id)

    consumer.cancel_for = cancel_for
