"""Actions: a count and a sample, then a confirmation that names the number, then the record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from outbox_console.errors import Problem
from outbox_console.outbox import actions, filters, listing
from outbox_console.outbox.filters import Filter
from outbox_console.outbox.states import State
from outbox_console.pages.console import allow, console_of, form, only, page, person_of
from outbox_console.pages.messages import state_of
from outbox_console.postgres.database import Session

_SAMPLE: Final = 8
_PAGE: Final = 50

#: What each does, in the words of its confirmation.
MEANING: Final = {
    "retry": "They become pending again, with a fresh count of attempts, and are published.",
    "discard": "They are deleted for good, and are never published.",
    "cancel": "They are deleted for good, and are never published. What a relay holds at this "
    "moment is kept.",
    "replay": "They are published once more under the same ids. Workers without "
    "celery_inbox.idempotent run them again.",
    "reschedule": "They are published at another time. What a relay holds at this moment, or "
    "waits in a lane, is kept.",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be done to which messages: those of `wanted`, at most `most`, up to `newest`."""

    action: str
    state: State
    wanted: Filter
    newest: int
    most: int


async def confirm(request: Request) -> Response:
    """How many it is about, some of them, and the question."""
    person, fields = person_of(request), await form(request)
    choice = _choice(fields)
    allow(request, choice.wanted)
    payload = person.sees_payload

    async def work(session: Session) -> tuple[int, listing.Counted, listing.Page]:
        newest = await session.value(listing.NEWEST) or 0
        count = await listing.count(session, choice.state, choice.wanted, payload=payload)
        sample = await listing.page(
            session, choice.state, choice.wanted, payload=payload, size=_SAMPLE
        )
        return newest, count, sample

    newest, counted, sample = await console_of(request).database.read(person.reads_as, work)
    if not counted.count and counted.more:
        raise Problem(409, "None was found in a second of looking", "Give a time to look from.")
    if not counted.count:
        raise Problem(409, "No message is left that this is about", "Load the list again.")
    return page(
        request,
        "confirm.html",
        choice=choice,
        meaning=MEANING[choice.action],
        newest=newest,
        count=counted.count,
        more=counted.more,
        sample=sample.entries,
    )


async def do(request: Request) -> Response:
    """Do it, and go to the record."""
    person, fields = person_of(request), await form(request)
    choice = _choice(fields)
    allow(request, choice.wanted)
    order = actions.Order(choice.action, only(fields, "why")[:2000], _time(fields, choice.action))

    async def choose(session: Session) -> list[listing.Place]:
        return await listing.places(
            session,
            choice.state,
            choice.wanted,
            choice.newest,
            choice.most,
            payload=person.sees_payload,
        )

    done = await actions.act(console_of(request).database, person, order, choose)
    base = request.scope.get("root_path", "")
    told = urlencode({"did": choice.action, "done": done, "asked": choice.most})
    return RedirectResponse(f"{base}/actions?{told}", 303)


async def record(request: Request) -> Response:
    """Who did what, newest first."""
    before = _number(request.query_params.get("before", "")) or 2**62

    async def work(session: Session) -> list[actions.Recorded]:
        return await actions.recorded(session, before, _PAGE + 1)

    found = await console_of(request).database.read(person_of(request).reads_as, work)
    values = request.query_params
    did = values.get("did", "")
    return page(
        request,
        "actions.html",
        recorded=found[:_PAGE],
        before=found[_PAGE - 1].id if len(found) > _PAGE else None,
        did=did if did in MEANING else "",
        done=_number(values.get("done", "")),
        asked=_number(values.get("asked", "")),
    )


def _choice(fields: Mapping[str, list[str]]) -> Choice:
    state = state_of(only(fields, "state"))
    action = only(fields, "action")
    if action not in state.actions:
        raise Problem(400, f"This cannot be done to what is {state.name}", "Choose another action.")
    # Not the search that the chosen ones were found with: they were chosen one by one.
    if only(fields, "all"):
        wanted = filters.parse({name: only(fields, name) for name in filters.FIELDS})
    else:
        rows = tuple(filter(None, (_number(text) for text in fields.get("row", []))))
        if not rows:
            raise Problem(400, "Nothing was chosen", "Go back and choose messages, or all of them.")
        wanted = replace(Filter(), rows=rows)
    newest = _number(only(fields, "newest"))
    most = min(_number(only(fields, "count")), listing.MAX_REACHED)
    return Choice(action, state, wanted, newest, most)


def _time(fields: Mapping[str, list[str]], action: str) -> datetime | None:
    if action != "reschedule":
        return None
    try:
        return datetime.fromisoformat(only(fields, "at")).replace(tzinfo=UTC)
    except ValueError:
        raise Problem(400, "The new time is missing", "Go back and give one, in UTC.") from None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


ROUTES: Final = [
    Route("/actions", record, methods=["GET"]),
    Route("/actions", do, methods=["POST"]),
    Route("/actions/confirm", confirm, methods=["POST"]),
]
