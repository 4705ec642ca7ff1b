"""Plain Celery: `.delay()` straight to RabbitMQ, with and without waiting for each confirm."""

from celery import Celery

from bench.instruments import cpu
from bench.instruments.run import Run, timed
from bench.lab import Lab
from bench.load import queues
from bench.load.tasks import ARGUMENTS, NAME, send_order_mail


def measure(lab: Lab, total: int, *, confirm: bool) -> Run:
    """Send `total` tasks; the time is the caller's."""
    node = lab.require_rabbitmq()
    url = node.url()
    routes = queues.fresh(url)
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.task_default_queue = routes[0].queue
    app.conf.broker_transport_options = {"confirm_publish": confirm}
    task = app.task(name=NAME)(send_order_mail)
    try:
        task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)  # connects
        before = cpu.spent(node.process.pid)
        with timed() as watch:
            for _ in range(total):
                task.delay(*ARGUMENTS.positional, **ARGUMENTS.named)
                watch.beat()
        broker = cpu.spent(node.process.pid) - before
    finally:
        app.close()  # what is still in the socket arrives before the end of the stream
    queues.await_depth(url, routes, total + 1)
    queues.delete(url, routes)
    return Run(total, watch.seconds, {"sender": watch.cpu, "broker": broker}, watch.silence)
