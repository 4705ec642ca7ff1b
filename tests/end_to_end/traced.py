"""A shop whose requests and workers are traced: `celery -A tests.end_to_end.traced worker`.

Run as a program, it is the request: `python -m tests.end_to_end.traced DATABASE_URL SENTRY_TRACE`,
the latter being another propagator's header. No test imports it: that would trace whatever pool
the test's own process begins, for all tests to come.
"""

import os
import sys
from typing import Any

import psycopg
from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from celery_outbox import OutboxCelery

app = OutboxCelery("traced", broker=os.environ.get("TRACED_BROKER_URL"))
app.conf.update(task_default_queue="mail", broker_connection_retry_on_startup=True)


@app.task(name="bill", bind=True)
def bill(self: Any) -> None:
    """Do it, and see the headers that came."""
    with trace.get_tracer("shop").start_as_current_span("charge the card") as span:
        span.set_attribute("sentry-trace", getattr(self.request, "sentry-trace", "") or "")


@worker_process_init.connect(weak=False)
def instrument(**_: Any) -> None:
    """As the instrumentation's own page says: in each process of the pool."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]  # theirs has no types


def main(url: str, sentry_trace: str) -> None:
    """Serve a request: what it stores and the task are one transaction."""
    instrument()
    with trace.get_tracer("shop").start_as_current_span("POST /orders") as span:
        with psycopg.connect(url) as connection, app.outbox.using(connection):
            sent = bill.apply_async(headers={"sentry-trace": sentry_trace})
        print(f"{span.get_span_context().trace_id:032x} {sent.id}")


if __name__ == "__main__":
    main(*sys.argv[1:])
