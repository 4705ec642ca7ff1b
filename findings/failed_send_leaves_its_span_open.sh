#!/usr/bin/env bash
# A send that fails, as while the broker is away, leaves its span open, and the next requests become part of it.
#
# Versions: opentelemetry-instrumentation-celery 0.66b2, opentelemetry-sdk 1.45.2, celery 5.7.0.
# Expected: the span `apply_async/TASK` ends with an error when `apply_async` raises; what follows has nothing to do
#           with it.
# Happens:  the span is made the current one by `before_task_publish`, and ended by `after_task_publish`, which Celery
#           does not send for a task that could not be published. It is never exported, and stays current in this
#           thread: the next request's spans are its children, in its trace.
# Matters:  in an outage of the broker the traces of unrelated requests grow together, and tasks sent later carry the
#           wrong trace to relay and worker. A task that goes into an outbox needs no broker to be sent.

. "$(dirname "$0")/lib/finding.sh"
packages opentelemetry-instrumentation-celery==0.66b2 opentelemetry-sdk==1.45.2 celery==5.7.0

python - <<'END'
from celery import Celery
from kombu.exceptions import OperationalError
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exported = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exported))
trace.set_tracer_provider(provider)
CeleryInstrumentor().instrument()


def bill():
    pass


def sent(broker):
    """What is exported of a request that sends a task, and what is current after it."""
    exported.clear()
    app = Celery("shop", broker=broker)
    try:
        app.task(bill, name="shop.bill").apply_async(retry=False)
    except OperationalError:
        pass
    names = [span.name for span in exported.get_finished_spans()]
    return names, getattr(trace.get_current_span(), "name", None)


works, fails = sent("memory://"), sent("amqp://127.0.0.1:1")
print("the broker is there: exported", works[0], "- current afterwards:", works[1])
assert works == (["apply_async/shop.bill"], None)
print("it is away:          exported", fails[0], "- current afterwards:", fails[1])
assert fails == ([], "apply_async/shop.bill")

with trace.get_tracer("shop").start_as_current_span("GET /next"):
    pass
(following,) = exported.get_finished_spans()
leaked = trace.get_current_span().get_span_context()
print("the next request is a child of the send that failed:", following.parent.span_id == leaked.span_id)
assert following.context.trace_id == leaked.trace_id
assert following.parent.span_id == leaked.span_id
END
