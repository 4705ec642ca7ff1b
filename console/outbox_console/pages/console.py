"""What the pages share: the database, the pulse, the forms' tokens, and how a page is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from outbox_console.depths import Depths
from outbox_console.doctor import Doctor
from outbox_console.errors import Problem
from outbox_console.mask import Mask
from outbox_console.outbox.filters import Filter
from outbox_console.outbox.pulse import Pulse
from outbox_console.outbox.states import STATES
from outbox_console.people.forms import COOKIE, Forms
from outbox_console.people.person import Person
from outbox_console.postgres.database import Database
from outbox_console.shown import charts, words

#: Bytes of a form: a page of ids takes a hundredth of it.
_LARGEST_FORM: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Console:
    """Made once for an application."""

    database: Database
    pulse: Pulse
    forms: Forms
    templates: Environment
    doctor: Doctor
    depths: Depths
    mask: Mask | None


def templates() -> Environment:
    """Jinja's environment: all text is escaped, a forgotten value is an error."""
    environment = Environment(
        loader=PackageLoader("outbox_console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=words.amount,
        duration=words.duration,
        instant=words.instant,
        machine=words.machine,
        number=words.number,
        spark=charts.spark,
    )
    environment.globals["states"] = STATES
    return environment


def console_of(request: Request) -> Console:
    """The console that a request is for."""
    console: Console = request.app.state.console
    return console


def person_of(request: Request) -> Person:
    """Who it is from: the gate has let nobody else in."""
    person: Person = request.scope["outbox_person"]
    return person


def allow(request: Request, wanted: Filter) -> Filter:
    """The same search; raises Problem where its answer would tell what a mask hides."""
    if wanted.text and console_of(request).mask is not None:
        raise Problem(403, "Arguments are masked here", "Search without them.")
    return wanted


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page from its template, with what all pages show."""
    console, person = console_of(request), person_of(request)
    cookie = _cookie(request)
    known = bool(cookie)
    cookie = cookie or console.forms.new_cookie()
    common = {
        "base": request.scope.get("root_path", ""),
        "person": person,
        "leaves": bool(request.scope["outbox_door"]),
        "searches_payload": person.sees_payload and console.mask is None,
        "dead": console.pulse.dead,
        "token": console.forms.token(cookie, person.name),
        "path": request.url.path.removeprefix(request.scope.get("root_path", "")),
    }
    text = console.templates.get_template(template).render({**common, **values})
    response = HTMLResponse(text, status)
    if not known:
        response.set_cookie(
            COOKIE,
            cookie,
            path=f"{common['base']}/",
            # A proxy that is believed by mistake only makes the cookie stricter.
            secure=console.forms.https_only
            or "https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
            httponly=True,
            samesite="strict",
        )
    return response


def fragment(request: Request, template: str, **values: Any) -> Response:
    """A part of a page, for its script."""
    return HTMLResponse(console_of(request).templates.get_template(template).render(values))


async def form(request: Request) -> dict[str, list[str]]:
    """The fields of a form that one of our pages made for this person; raises Problem."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise Problem(415, "No form of ours is sent like this", "Use the page's own.")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _LARGEST_FORM:
            raise Problem(413, "The form is too large", "Choose fewer messages, or a filter.")
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=20_000)
    except ValueError as error:
        raise Problem(400, "The form cannot be read", "Load the page again.") from error
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    token = only(fields, "token")
    if not console_of(request).forms.is_ours(token, _cookie(request), person_of(request).name):
        raise Problem(
            403,
            "This form is not ours, or older than the console's last start",
            "Nothing was done. Go back, load the page again, and repeat it there. Several "
            "consoles behind one address need one OUTBOX_CONSOLE_KEY.",
        )
    return fields


def only(fields: Mapping[str, list[str]], name: str) -> str:
    """The value of a field that is there once; empty where it is not there."""
    values = fields.get(name, [""])
    return values[0] if len(values) == 1 else ""


def _cookie(request: Request) -> str:
    return request.cookies.get(COOKIE, "")
