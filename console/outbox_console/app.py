"""The application: pages behind a gate, mounted anywhere, or served by the command."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from outbox_console import settings as reading
from outbox_console.depths import Depths
from outbox_console.doctor import Doctor
from outbox_console.errors import Problem
from outbox_console.gate import Gate, Who
from outbox_console.mask import Mask, load
from outbox_console.outbox.pulse import Pulse
from outbox_console.pages import (
    actions,
    doctor,
    door,
    failures,
    messages,
    overview,
    routes,
    workers,
)
from outbox_console.pages.console import Console, page, templates
from outbox_console.people import openid
from outbox_console.people.forms import Forms
from outbox_console.people.person import Person
from outbox_console.people.signing_in import Nobody, sign_in
from outbox_console.postgres.database import Database
from outbox_console.settings import Settings

_STATIC: Final = Path(__file__).with_name("static")


def create_app(
    *,
    database_url: str,
    schema: str = "outbox",
    role: str = "viewer",
    who: Who | None = None,
    doctor: str = reading.DOCTOR,
    relay_metrics: tuple[str, ...] = (),
    mask: Mask | None = None,
    key: str = "",
) -> Starlette:
    """The console, to be mounted in an ASGI application that has let people in already.

    Everybody who gets there has `role`: viewer, viewer-with-payload, operator or
    operator-with-payload. `who` tells people apart instead: it gets Starlette's HTTPConnection, and
    returns a `Person` or None, who is refused. `doctor` is the command that the page of that name
    runs; `relay_metrics` are URLs of relays' metrics, for how deep the queues are at the broker.
    `mask` gets the task's name, the part of the payload and its text, and returns what is shown.
    `key` is a secret that all processes of the application share, so that each takes the forms of
    the others' pages. Raises SettingsError.
    """
    settings = reading.check(
        Settings(
            database_url=reading.constant_url(database_url),
            schema=schema,
            role=role,
            doctor=doctor,
            relay_metrics=relay_metrics,
            key=key,
        )
    )
    return _application(settings, [Middleware(Gate, Nobody(role), who, False)], mask)


def serve_app(settings: Settings) -> Starlette:
    """The console as the command serves it: with the sign-in of its settings."""
    mask = load(settings.mask) if settings.mask else None
    if settings.openid is None:
        gate = Middleware(Gate, sign_in(settings), None, not settings.knows_people)
        return _application(settings, [gate], mask)
    openid.check_installed()
    provider = openid.Provider(settings.openid)
    gate = Middleware(Gate, Nobody(settings.role), provider.who, False, openid.SIGN_IN)
    return _application(settings, [gate], mask, door.routes(provider))


def _application(
    settings: Settings,
    middleware: Sequence[Middleware],
    mask: Mask | None,
    more: Sequence[Route] = (),
) -> Starlette:
    database = Database(settings.database_url, settings.schema)
    provider = settings.openid
    console = Console(
        database,
        Pulse(database),
        Forms(
            settings.key or (provider.client_secret() if provider else ""),
            https_only=provider is not None and provider.url.startswith("https://"),
        ),
        templates(),
        Doctor(settings.doctor, settings.database_url, settings.schema),
        Depths(settings.relay_metrics),
        mask,
    )

    @asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        console.pulse.start()  # mounted, it starts with the first page
        yield
        await console.doctor.stop()
        await console.pulse.stop()
        console.database.close()

    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            *overview.ROUTES,
            *messages.ROUTES,
            *failures.ROUTES,
            *routes.ROUTES,
            *workers.ROUTES,
            *doctor.ROUTES,
            *more,
            *actions.ROUTES,
            Mount("/static", StaticFiles(directory=_STATIC), name="static"),
        ],
        middleware=middleware,
        exception_handlers={Problem: _problem, HTTPException: _http_error},
        lifespan=living,
    )
    app.state.console = console
    return app


async def _healthz(_: Request) -> Response:
    """That the process answers; a database that is away is shown, and no reason to restart it."""
    return PlainTextResponse("ok\n")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return page(request, "problem.html", error.status, problem=error, returns=error.status == 503)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if "outbox_person" not in request.scope:
        return PlainTextResponse("Not found\n", error.status_code, _headers(error))
    told = {404: ("There is no such page", "Begin with the overview.")}
    title, remedy = told.get(error.status_code, ("This cannot be done here", "Use the pages."))
    problem = Problem(error.status_code, title, remedy)
    return page(request, "problem.html", error.status_code, problem=problem, returns=False)


def _headers(error: HTTPException) -> Mapping[str, str]:
    return error.headers or {}


__all__ = ["Person", "create_app", "serve_app"]
