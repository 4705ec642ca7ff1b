"""Doctor: what is wrong with database, schema, relays and broker, and the way out."""

from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from outbox_console.pages.console import console_of, form, page


async def shown(request: Request) -> Response:
    """The last report, and the button for the next."""
    examiner = console_of(request).doctor
    return page(request, "doctor.html", report=examiner.report, command=examiner.command)


async def examine(request: Request) -> Response:
    """Examine, and show the report."""
    await form(request)
    await console_of(request).doctor.examine()
    return RedirectResponse(f"{request.scope.get('root_path', '')}/doctor", 303)


ROUTES: Final = [
    Route("/doctor", shown, methods=["GET"]),
    Route("/doctor", examine, methods=["POST"]),
]
