"""Routes: the queues, with what waits here, what is at the broker, and who takes it."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outbox_console.outbox import routes as asked
from outbox_console.outbox import workers
from outbox_console.outbox.samples import Counts
from outbox_console.pages.console import console_of, page, person_of
from outbox_console.postgres.database import Session


async def routes(request: Request) -> Response:
    """All of them."""
    console = console_of(request)
    sample = (await console.pulse.now()).sample
    totals = None
    if sample is not None:
        totals = Counts(sample.pending, sample.scheduled, sample.dead, sample.expired)

    async def work(session: Session) -> tuple[asked.Routes, list[workers.Worker] | None]:
        return await asked.read(session, totals), await workers.workers(session)

    found, known = await console.database.read(person_of(request).reads_as, work)
    return page(
        request,
        "routes.html",
        found=found,
        depths=await console.depths.read(),
        depths_asked=console.depths.asked,
        # Of workers that do not announce themselves nothing can be said.
        takers=_takers(known) if known else None,
    )


def _takers(known: list[workers.Worker]) -> dict[str, int]:
    """How many live workers take from each queue."""
    counts: dict[str, int] = {}
    for worker in known:
        for queue in worker.queues if worker.alive else ():
            counts[queue] = counts.get(queue, 0) + 1
    return counts


ROUTES: Final = [Route("/routes", routes)]
