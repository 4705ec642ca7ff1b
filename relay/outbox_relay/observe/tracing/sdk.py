"""Writes spans with OpenTelemetry's SDK, which the usual OTEL_ variables set up.

The one module that imports OpenTelemetry. Its batch processor exports on a thread of its own; here
it is counted what it was given and what a collector has taken, so that its queue never overflows
unnoticed.
"""

import logging
import re
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from os import environ
from time import monotonic, time
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from outbox_relay.errors import SettingsError
from outbox_relay.observe.tracing.parent import Parent
from outbox_relay.observe.tracing.spans import Plan, Span

SERVICE: Final = "outbox-relay"
EXPORTER: Final = "OTEL_TRACES_EXPORTER"
PROTOCOL: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
QUEUE_SIZE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
#: Of the conventions for messaging that names and attributes follow.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.28.0"
#: The processor's own default.
MAX_QUEUE_SIZE: Final = 2048
#: What `otlp` stands for, by its protocol. The first comes with our extra.
PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
#: Of the SDK's words.
MAX_TROUBLE: Final = 300


class Writer:
    """Turns plans into spans, and has them exported."""

    def __init__(self, exporters: Sequence[SpanExporter], trouble: "Trouble") -> None:
        self._trouble = trouble
        self._limit = _max_queue_size()
        self._counted = [_Counted(exporter) for exporter in exporters]
        # Its own hook at the end of the process waits for a collector however long.
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in self._counted:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(SERVICE, _version(), schema_url=SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()
        self._given = self._refused = 0

    @classmethod
    def from_environment(cls) -> "Writer":
        """Set up by the OTEL_ variables; raises SettingsError where one cannot be followed."""
        trouble = Trouble()
        return cls(_exporters(), trouble)

    def write(self, plan: Plan) -> None:
        """Have the spans of a batch exported; what there is no room for is dropped, and counted."""
        # What begins a trace is sampled by itself; what goes on with one, as that is.
        offset = time() - monotonic()
        contexts = {parent: self._context(parent) for parent in plan.senders}
        whole: list[Link] = []
        if plan.whole:
            senders = [Link(_span_context(context)) for context in contexts.values()]
            whole = [Link(self._span(plan.whole, offset, Context(), senders))]
        for span in (*plan.attempts, *plan.waits):
            if self._behind >= self._limit:
                self._refused += 1
            elif span.parent and _span_context(context := contexts[span.parent]).is_valid:
                self._span(span, offset, context, whole if span.calling else [])

    def _context(self, parent: Parent) -> Context:
        return self._propagator.extract(parent._asdict(), Context())

    def _span(
        self, span: Span, offset: float, context: Context, links: Sequence[Link]
    ) -> SpanContext:
        made = self._tracer.start_span(
            span.name,
            context,
            SpanKind.CLIENT if span.calling else SpanKind.INTERNAL,
            span.attributes,
            links,
            _nanoseconds(span.begin + offset),
        )
        for event in span.events:
            made.add_event(event.name, event.attributes, _nanoseconds(event.at + offset))
        if span.error:
            made.set_status(Status(StatusCode.ERROR, span.error))
        if made.is_recording():
            self._given += 1
        made.end(_nanoseconds(span.end + offset))
        return made.get_span_context()

    @property
    def dropped(self) -> int:
        """Spans that no collector will have, so far."""
        return self._refused + sum(each.failed for each in self._counted)

    @property
    def ready(self) -> bool:
        """Whether there is room for more: half of the queue is free."""
        return 2 * self._behind <= self._limit

    @property
    def left(self) -> int:
        """Spans that are not exported yet."""
        return sum(self._given - each.ended for each in self._counted)

    @property
    def _behind(self) -> int:
        return max((self._given - each.ended for each in self._counted), default=0)

    def trouble(self) -> str:
        """The last that the SDK complained of since this was asked; empty where it did not."""
        return self._trouble.take()

    def close(self) -> None:
        """Export what is left. It may take as long as a collector does: see `recorder`."""
        self._provider.shutdown()


class _Counted(SpanExporter):
    """An exporter that counts what has ended, and how."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.ended = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export them, for as long as that takes."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.failed += len(spans)
            self.ended += len(spans)
        return result

    def shutdown(self) -> None:
        """Take no more."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have done with what was taken."""
        return self._exporter.force_flush(timeout_millis)


class Trouble(logging.Handler):
    """Keeps the last of what the SDK complains of, for a log line that is ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last = ""
        logger = logging.getLogger("opentelemetry")
        logger.handlers = [self]
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it, without what an address may carry behind its `?` or before its `@`."""
        text = re.sub(r"\?\S*", "?…", record.getMessage())
        self._last = re.sub(r"//[^/@\s]*@", "//…@", text)[:MAX_TROUBLE]

    def take(self) -> str:
        """The last complaint; it is told once."""
        last, self._last = self._last, ""
        return last


def _exporters() -> list[SpanExporter]:
    """What OTEL_TRACES_EXPORTER names: OTLP over HTTP unless it says otherwise."""
    names = [name.strip() for name in environ.get(EXPORTER, "").split(",")]
    wanted = [name for name in names if name] or ["otlp"]
    return [_exporter(_exact(name)) for name in wanted if name != "none"]


def _exact(name: str) -> str:
    if name != "otlp":
        return name
    for variable in PROTOCOL:
        if protocol := environ.get(variable, "").strip():
            if protocol not in PROTOCOLS:
                raise SettingsError(f"{variable}: say one of {', '.join(PROTOCOLS)}")
            return PROTOCOLS[protocol]
    return PROTOCOLS["http/protobuf"]


def _exporter(name: str) -> SpanExporter:
    group = entry_points(group="opentelemetry_traces_exporter", name=name)
    for found in group:
        try:
            exporter: SpanExporter = found.load()()
        except Exception as error:  # whatever an exporter of somebody else's raises
            raise SettingsError(
                f"OpenTelemetry's exporter {name!r} cannot start: {error}"
            ) from error
        return exporter
    package = f"opentelemetry-exporter-{name.replace('_', '-')}"
    raise SettingsError(f"{EXPORTER}: there is no exporter {name!r}; is {package} installed?")


def _resource() -> Resource:
    """What the environment says of this service, and our name where it says none."""
    found = Resource.create()
    ours = {SERVICE_VERSION: _version()}
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        ours[SERVICE_NAME] = SERVICE
    else:
        ours.pop(SERVICE_VERSION)
    return found.merge(Resource(ours))


def _max_queue_size() -> int:
    text = environ.get(QUEUE_SIZE, "")
    return int(text) if text.isdigit() else MAX_QUEUE_SIZE


def _version() -> str:
    return version("outbox-relay")


def _span_context(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
