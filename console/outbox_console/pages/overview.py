"""Overview: do tasks flow? Numbers that move by themselves, and the last hour."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from outbox_console.outbox.pulse import Beat, Pulse
from outbox_console.outbox.samples import Sample
from outbox_console.pages.console import console_of, fragment, page
from outbox_console.shown import charts, verdict
from outbox_console.shown.charts import Chart
from outbox_console.shown.words import duration, number

#: A stream ends after this many beats, about an hour: the browser opens another by itself.
_MAX_BEATS: Final = 1800


async def overview(request: Request) -> Response:
    """The page; the last hour is drawn with it."""
    console = console_of(request)
    beat = await console.pulse.now()
    if beat.problem is not None or beat.sample is None:
        problem = beat.problem
        return page(request, "problem.html", 503, problem=problem, returns=True)
    return page(
        request,
        "overview.html",
        sample=beat.sample,
        shown=shown(beat.sample),
        verdict=verdict.of(beat.sample),
        charts=_charts(console.pulse),
    )


async def hour(request: Request) -> Response:
    """The charts alone, drawn anew."""
    return fragment(request, "charts.html", charts=_charts(console_of(request).pulse))


async def events(request: Request) -> Response:
    """The numbers as server-sent events, for as long as somebody looks."""
    pulse = console_of(request).pulse
    return StreamingResponse(
        _stream(pulse),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


def shown(sample: Sample) -> dict[str, str]:
    """The numbers as text, by the names under which the page has them."""
    return {
        "committed": number(sample.committed),
        "confirmed": number(sample.confirmed),
        "executed": "\u2013" if sample.executed is None else number(sample.executed),
        "lag": duration(sample.lag),
        "oldest": duration(sample.oldest if sample.pending else None),
        "pending": number(sample.pending),
        "scheduled": number(sample.scheduled),
        "dead": number(sample.dead),
        "expired": number(sample.expired),
        "relays": number(sample.relays),
    }


def event(beat: Beat) -> str:
    """One event: numbers and verdict, or the problem."""
    told: dict[str, object] = {"id": beat.number}
    if beat.sample is not None:
        judged = verdict.of(beat.sample)
        told["numbers"] = shown(beat.sample)
        told["dead"] = beat.sample.dead
        told["verdict"] = [judged.level, judged.title, judged.remedy]
    elif beat.problem is not None:
        told["problem"] = [beat.problem.title, beat.problem.remedy]
    return f"data: {json.dumps(told)}\n\n"


async def _stream(pulse: Pulse) -> AsyncIterator[str]:
    beat = await pulse.now()
    for _ in range(_MAX_BEATS):
        yield event(beat)
        beat = await pulse.after(beat.number)


def _charts(pulse: Pulse) -> list[Chart]:
    samples = pulse.history
    now = samples[-1].at if samples else datetime.now(UTC)
    return [make(samples, now) for make in (charts.flow, charts.waiting, charts.oldest)]


ROUTES: Final = [
    Route("/", overview),
    Route("/hour", hour),
    Route("/events", events),
]
