"""Messages by state, with a search that can be bookmarked; and one message, whole."""

from dataclasses import replace
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from outbox_console.errors import Problem
from outbox_console.outbox import filters, listing, message
from outbox_console.outbox.states import BY_NAME, State
from outbox_console.pages.console import allow, console_of, page, person_of
from outbox_console.postgres.database import Session
from outbox_console.shown import life, payload

#: No row has a higher number: that of a bigint.
_MAX_ID: Final = 2**63 - 1


async def messages(request: Request) -> Response:
    """A page of one state."""
    person = person_of(request)
    state = state_of(request.query_params.get("state", "pending"))
    wanted = allow(request, filters.parse(request.query_params))
    after = request.query_params.get("after", "")

    async def work(session: Session) -> listing.Page:
        return await listing.page(session, state, wanted, payload=person.sees_payload, after=after)

    mask, problem = console_of(request).mask, None
    try:
        found = await console_of(request).database.read(person.reads_as, work)
    except Problem as error:
        # The search stays on the page, to be narrowed.
        found, problem = listing.Page([], ""), error
    return page(
        request,
        "messages.html",
        problem.status if problem else 200,
        state=state,
        wanted=wanted,
        found=replace(found, entries=[payload.entry(mask, each) for each in found.entries]),
        after=after,
        problem=problem,
    )


async def one(request: Request) -> Response:
    """Everything about a message that this person may see."""
    person, id_ = person_of(request), request.path_params["id"]

    slot = request.query_params.get("slot", "")

    async def work(session: Session) -> message.Found | None:
        if id_ > _MAX_ID:
            return None
        of = int(slot) if slot in map(str, range(16)) else None
        return await message.find(session, id_, of, payload=person.sees_payload)

    found = await console_of(request).database.read(person.reads_as, work)
    if found is None:
        raise Problem(
            404,
            f"There is no message {id_}",
            "It was rolled back, discarded, or forgotten by retention.",
        )
    mask, seen = console_of(request).mask, found.payload
    return page(
        request,
        "message.html",
        schema=console_of(request).database.schema,
        message=found.message,
        state=BY_NAME[found.message.state],
        siblings=found.siblings,
        family=found.family,
        steps=life.steps(found.message, found.receipt, receipts_known=found.receipts_known),
        payload=seen,
        parts=payload.parts(mask, found.message, seen) if seen else [],
    )


async def find(request: Request) -> Response:
    """From an id to its message; where it has several rows, to a list of them."""
    person, text = person_of(request), request.query_params.get("id", "").strip()
    base = request.scope.get("root_path", "")
    if not text or "\0" in text:
        return RedirectResponse(f"{base}/messages", 303)

    async def work(session: Session) -> list[int]:
        return await message.search(session, text[:500])

    rows = await console_of(request).database.read(person.reads_as, work)
    if not rows:
        raise Problem(
            404,
            "No message has this id",
            "It was rolled back, discarded, or forgotten by retention; or it went another way "
            "than through this outbox.",
        )
    # The newest: of a task that was retried, the attempt that counts. It links to the others.
    return RedirectResponse(f"{base}/messages/{rows[-1]}", 303)


def state_of(name: str) -> State:
    """The state of that name."""
    if name not in BY_NAME:
        raise Problem(404, "There is no such state", f"One of {', '.join(BY_NAME)}.")
    return BY_NAME[name]


ROUTES: Final = [
    Route("/messages", messages),
    Route("/messages/{id:int}", one),
    Route("/find", find),
]
