"""Failures: what is dead, and what waits for another attempt, by cause."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outbox_console.outbox import failures as asked
from outbox_console.outbox.failures import Failures
from outbox_console.pages.console import console_of, page, person_of
from outbox_console.postgres.database import Session


async def failures(request: Request) -> Response:
    """Both, each by cause."""

    async def work(session: Session) -> tuple[Failures, Failures]:
        return await asked.dead(session), await asked.retrying(session)

    dead, retrying = await console_of(request).database.read(person_of(request).reads_as, work)
    return page(
        request,
        "failures.html",
        groups=[
            ("dead", "Given up", dead, _count(dead)),
            ("pending", "Tried again by themselves", retrying, _count(retrying)),
        ],
        looked_at=asked.LOOKED_AT,
    )


def _count(failures: Failures) -> int:
    return sum(cause.count for cause in failures.causes)


ROUTES: Final = [Route("/failures", failures)]
