"""Our relay against RabbitMQ: so many processes, so many queues of a kind."""

from bench.instruments.drain import Target, drain
from bench.instruments.run import Run
from bench.lab import Lab
from bench.load import messages, queues
from bench.load.queues import Kind


def measure(lab: Lab, kind: Kind, count: int, total: int, relays: int, fence: str = "off") -> Run:
    """Drain `total` messages, and find every one of them in the queues."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind, count)
    messages.refill(lab, total, routes)
    target = Target((node.url(),) * relays, (node.process.pid,), {"OUTBOX_FENCE": fence})
    run = drain(lab, target, total)
    queues.await_depth(node.url(), routes, total)
    queues.delete(node.url(), routes)
    return run
