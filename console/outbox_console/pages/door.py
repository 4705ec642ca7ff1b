"""The door: from the console to the provider of OpenID Connect and back, and out again."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from outbox_console.pages.console import form
from outbox_console.people.openid import CALLBACK, SIGN_IN, NotLetIn, Provider


def routes(provider: Provider) -> Sequence[Route]:
    """The three pages of it."""

    async def begin(request: Request) -> Response:
        """To the provider."""
        wanted = request.query_params.get("next", "/")
        try:
            return await provider.lead_there(request, wanted if _is_ours(wanted) else "/")
        except NotLetIn as refusal:
            return _refused(refusal)

    async def end(request: Request) -> Response:
        """Back from it, to the page that was asked for."""
        try:
            told, wanted = await provider.let_in(request)
        except NotLetIn as refusal:
            return _refused(refusal)
        answer = RedirectResponse(wanted, 303)
        provider.keep(request, answer, told)
        return answer

    async def leave(request: Request) -> Response:
        """Forget who it was."""
        await form(request)
        answer = PlainTextResponse("You have left the outbox.\n")
        provider.forget(answer)
        return answer

    return [
        Route(SIGN_IN, begin, methods=["GET"]),
        Route(CALLBACK, end, methods=["GET"]),
        Route("/sign-out", leave, methods=["POST"]),
    ]


def _is_ours(path: str) -> bool:
    # At most so long: it is kept in a cookie.
    plain = path.isprintable() and "\\" not in path and len(path) < 2000
    return plain and path.startswith("/") and not path.startswith("//")


def _refused(refusal: NotLetIn) -> Response:
    return PlainTextResponse(f"{refusal}\n", refusal.status)
