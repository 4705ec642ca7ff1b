"""Each agent: how it is started, and what of the trace a task sees. Nothing is sent to anybody.

Agents are looked up by name and imported late: each is installed in an environment of its own.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent, by what the tests need of it."""

    #: Starts it, before anything that it instruments is imported.
    start: Callable[[], None]
    #: Runs a function within a transaction of the agent; returns the trace's id and the result.
    traced: Callable[[Callable[[], object]], str]
    #: The id of the trace that is going on here.
    trace_id: Callable[[], str]
    #: A header that it adds to each task.
    header: str
    #: Whether connections of psycopg become proxies.
    proxies: bool


def _ddtrace_start() -> None:
    os.environ |= {
        "DD_CELERY_DISTRIBUTED_TRACING": "true",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        "DD_TRACE_AGENT_URL": "http://127.0.0.1:9",
        "DD_TRACE_LOGGING_RATE": "3600",
    }
    import_module("ddtrace.auto")


def _ddtrace_traced(function: Callable[[], object]) -> str:
    tracer = import_module("ddtrace.trace").tracer
    with tracer.trace("request") as span:
        function()
        return str(span.trace_id)


def _ddtrace_trace_id() -> str:
    span = import_module("ddtrace.trace").tracer.current_span()
    return str(span.trace_id) if span else ""


def _newrelic_start() -> None:
    os.environ |= {
        "NEW_RELIC_APP_NAME": "shop",
        "NEW_RELIC_LICENSE_KEY": "0" * 40,
        "NEW_RELIC_DEVELOPER_MODE": "true",  # no connection to anybody
        "NEW_RELIC_STARTUP_TIMEOUT": "10",
    }
    agent = import_module("newrelic.agent")
    agent.initialize()
    agent.register_application(timeout=10)


def _newrelic_traced(function: Callable[[], object]) -> str:
    agent = import_module("newrelic.agent")
    with agent.BackgroundTask(agent.application(), name="request") as transaction:
        function()
        return str(transaction.trace_id)


def _newrelic_trace_id() -> str:
    transaction = import_module("newrelic.agent").current_transaction()
    return str(transaction.trace_id) if transaction else ""


def _elastic_start() -> None:
    elasticapm = import_module("elasticapm")
    elasticapm.Client(
        service_name="shop", disable_send=True, central_config=False, cloud_provider="none"
    )
    celery = import_module("elasticapm.contrib.celery")
    celery.register_instrumentation(elasticapm.get_client())
    elasticapm.instrument()


def _elastic_traced(function: Callable[[], object]) -> str:
    elasticapm = import_module("elasticapm")
    client = elasticapm.get_client()
    client.begin_transaction("request")
    try:
        function()
        return str(elasticapm.get_trace_id())
    finally:
        client.end_transaction("request", "success")


def _elastic_trace_id() -> str:
    return str(import_module("elasticapm").get_trace_id() or "")


def _sentry_start() -> None:
    import_module("sentry_sdk").init(
        dsn="http://nobody@127.0.0.1:9/1", traces_sample_rate=1.0, transport=lambda _: None
    )


def _sentry_traced(function: Callable[[], object]) -> str:
    sentry = import_module("sentry_sdk")
    with sentry.start_transaction(name="request") as transaction:
        function()
        return str(transaction.trace_id)


def _sentry_trace_id() -> str:
    span = import_module("sentry_sdk").get_current_span()
    return str(span.trace_id) if span else ""


def _opentelemetry_start() -> None:
    provider = import_module("opentelemetry.sdk.trace").TracerProvider()
    import_module("opentelemetry.trace").set_tracer_provider(provider)
    for library, name in {
        "celery": "CeleryInstrumentor",
        "psycopg": "PsycopgInstrumentor",
        "psycopg2": "Psycopg2Instrumentor",
        "asyncpg": "AsyncPGInstrumentor",
        "sqlalchemy": "SQLAlchemyInstrumentor",
    }.items():
        module: Any = import_module(f"opentelemetry.instrumentation.{library}")
        getattr(module, name)().instrument(skip_dep_check=True)


def _opentelemetry_traced(function: Callable[[], object]) -> str:
    tracer = import_module("opentelemetry.trace").get_tracer("shop")
    with tracer.start_as_current_span("request") as span:
        function()
        return str(span.get_span_context().trace_id)


def _opentelemetry_trace_id() -> str:
    span = import_module("opentelemetry.trace").get_current_span()
    return str(span.get_span_context().trace_id)


AGENTS: Final = {
    "ddtrace": Agent(
        _ddtrace_start, _ddtrace_traced, _ddtrace_trace_id, "x-datadog-trace-id", proxies=True
    ),
    "newrelic": Agent(
        _newrelic_start, _newrelic_traced, _newrelic_trace_id, "traceparent", proxies=True
    ),
    "elastic-apm": Agent(
        _elastic_start, _elastic_traced, _elastic_trace_id, "elasticapm", proxies=True
    ),
    "sentry-sdk": Agent(
        _sentry_start, _sentry_traced, _sentry_trace_id, "sentry-trace", proxies=False
    ),
    "opentelemetry-instrumentation-celery": Agent(
        _opentelemetry_start,
        _opentelemetry_traced,
        _opentelemetry_trace_id,
        "traceparent",
        proxies=False,
    ),
}
