"""Result backends neither fail nor delay a send: what they do then is left out, or done later.

Without this a Redis that is away would fail `.delay()`, or hold up a group for a minute, and the
RPC backend would connect to the broker. Only a chord cannot do without its backend, which counts.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any
from weakref import WeakValueDictionary

import celery
from celery import _state
from celery.backends.rpc import RPCBackend
from kombu import Producer, Queue

from celery_outbox.capture.channel import OutboxProducer
from celery_outbox.worker import calling_errbacks, continuing_canvas


def keep_quiet(backend: Any) -> Any:
    """Return the same result backend, with some of its methods replaced."""
    _skip_task_call(backend)
    _put_off_groups(backend)
    _mark(backend, "on_chord_part_return", continuing_canvas)  # which sends the chord's body
    _mark(backend, "_call_task_errbacks", calling_errbacks)
    _unsubscribe_once(backend)
    return backend


def reply_queues(backend: Any) -> list[Queue]:
    """Return what must exist before a worker answers: of rpc://, the queue this thread reads."""
    waits: Any = _state  # celery-types knows only a part of it
    if isinstance(backend, RPCBackend) and not waits.task_join_will_block():
        return [backend.binding]
    return []


def _skip_task_call(backend: Any) -> None:
    """Leave out what Celery's own backends do as a task is sent.

    Redis would subscribe, which get() does again; rpc:// would declare its `reply_queues`, which
    travel with the message. What somebody else's backend does is done.
    """
    original = backend.on_task_call
    if not type(backend).on_task_call.__module__.startswith("celery."):
        return

    def on_task_call(producer: Producer, task_id: str) -> Any:
        return {} if isinstance(producer, OutboxProducer) else original(producer, task_id)

    backend.on_task_call = on_task_call


def _put_off_groups(backend: Any) -> None:
    """Subscribe to the results of a group when anything is waited for, not as it is sent.

    Each is then asked for once: it may have been ready before.
    """
    if not hasattr(backend, "add_pending_result"):
        return
    add, iterate = backend.add_pending_result, backend.iter_native
    # By identity: results of the same task are equal, and each has somebody who waits for it.
    put_off: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def subscribe() -> None:
        consumer = getattr(backend, "result_consumer", None)
        with suppress(KeyError):  # none left
            while True:
                identity, result = put_off.popitem()
                try:
                    add(result, weak=True)
                    if consumer is not None:
                        consumer.on_wait_for_pending(result)
                except BaseException:
                    put_off[identity] = result
                    raise

    def add_pending_result(result: Any, weak: bool = False, **kwargs: Any) -> Any:
        if weak:  # by a group, which only notes whom to tell
            put_off[id(result)] = result
            return result
        subscribe()
        return add(result, **kwargs)

    def iter_native(*args: Any, **kwargs: Any) -> Any:
        subscribe()
        return iterate(*args, **kwargs)

    backend.add_pending_result, backend.iter_native = add_pending_result, iter_native


def _mark(backend: Any, name: str, mark: Callable[[], AbstractContextManager[None]]) -> None:
    """Have everything that a method does marked as what it is."""
    original = getattr(backend, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        with mark():
            return original(*args, **kwargs)

    setattr(backend, name, method)


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
