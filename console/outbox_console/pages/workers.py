"""Relays and workers: who is alive, what they hold, and what they know."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from outbox_console.outbox import workers as asked
from outbox_console.pages.console import console_of, page, person_of


async def crew(request: Request) -> Response:
    """All of them."""
    found = await console_of(request).database.read(person_of(request).reads_as, asked.read)
    versioned = [relay for relay in found.relays if relay.version]
    return page(
        request,
        "workers.html",
        crew=found,
        versions=sorted({relay.version for relay in versioned}),
        brokers=len({relay.broker for relay in versioned}),
        settings=len({(relay.version, relay.settings) for relay in versioned}),
    )


ROUTES: Final = [Route("/workers", crew)]
