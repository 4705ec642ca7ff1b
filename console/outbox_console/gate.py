"""What every request passes: who it is from, and what no answer may lack.

Nobody who is not let in reaches a page; a form sent from another site changes nothing; and a
browser loads and runs nothing but what this package serves.
"""

import asyncio
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from outbox_console.people.person import Person
from outbox_console.people.signing_in import SignIn
from outbox_console.settings import is_loopback

#: Tells a person from a request.
Who = Callable[[HTTPConnection], Person | None]

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
#: Asked by what keeps the console running, and holding nothing: for these nobody signs in.
_OPEN: Final = ("/healthz", "/static/")


class Gate:
    """Wraps the pages. `local_only`: only what was asked for by a name of this machine.

    `door` is the page where people sign in, if there is one: whoever is not known is led there.
    """

    def __init__(
        self, app: ASGIApp, sign_in: SignIn, who: Who | None, local_only: bool, door: str = ""
    ) -> None:
        self._app, self._sign_in, self._who, self._local_only = app, sign_in, who, local_only
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = await self._refusal(scope)
        await (refusal or self._app)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        host = headers.get("host", "")
        # Any name can be made to resolve to loopback, by who wants to reach what listens there.
        if self._local_only and not is_loopback(_split(f"//{host}").hostname or ""):
            return _answer(403, f"This console answers on loopback alone, not as {host!r}.")
        if path.startswith(_OPEN) or (self._door and path.startswith(self._door)):
            return None
        if scope["method"] not in ("GET", "HEAD") and not _from_here(headers):
            return _answer(403, "This form was sent from another site. Nothing was done.")
        person = await self._person(scope, headers)
        if person is None and self._door and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"{self._door}?{urlencode({'next': _asked(scope, path)})}", 303)
        if person is None:
            challenge = self._sign_in.challenge
            return _answer(
                401 if challenge else 403,
                "Sign in to see the outbox.",
                {"www-authenticate": challenge} if challenge else {},
            )
        scope["outbox_person"], scope["outbox_door"] = person, self._door
        return None

    async def _person(self, scope: Scope, headers: Headers) -> Person | None:
        if self._who is not None:
            return self._who(HTTPConnection(scope))
        address = (scope.get("client") or ("",))[0]
        return await asyncio.to_thread(self._sign_in.who, headers, address)


def _asked(scope: Scope, path: str) -> str:
    """The page to come back to."""
    query = scope["query_string"].decode("latin-1")
    wanted = f"{path}?{query}" if query else path
    return wanted if scope["method"] == "GET" else "/"


def _from_here(headers: Headers) -> bool:
    """Whether the browser says that the page was ours; old ones say nothing, and have the token."""
    site = headers.get("sec-fetch-site")
    if site is not None:  # told by the browser: a proxy may have given us another name as Host
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or "" != _split(origin).netloc == headers.get("host")


def _split(address: str) -> SplitResult:
    """Its parts, which are empty where it is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _answer(status: int, text: str, headers: dict[str, str] | None = None) -> PlainTextResponse:
    return PlainTextResponse(text + "\n", status, {"cache-control": "no-store", **(headers or {})})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
