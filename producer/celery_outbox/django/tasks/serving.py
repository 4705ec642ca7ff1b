"""A worker consumes the QUEUES of every OutboxBackend in TASKS, unless it was told which (`-Q`)."""

from typing import Any

from celery import signals
from django.tasks import task_backends  # type: ignore[import-untyped]  # since Django 6.0

from celery_outbox.django.tasks.backend import OutboxBackend
from celery_outbox.django.tasks.delivery import queue_for


@signals.worker_init.connect
def consume_queues(sender: Any, **_: Any) -> None:
    """Add the queues to those that the worker is about to consume."""
    queues = sender.app.amqp.queues
    if queues._consume_from is not None:  # -Q or -X
        return
    backends = [backend for backend in task_backends.all() if isinstance(backend, OutboxBackend)]
    names = {queue_for(sender.app, each) for backend in backends for each in backend.queues}
    for name in sorted(names):
        queues.select_add(queues[name])
