"""Payloads as they may be shown: with a mask, masked first, and cut only then."""

from dataclasses import replace
from typing import Final

from outbox_console.mask import Mask, masked_json, masked_repr
from outbox_console.outbox.listing import Entry
from outbox_console.outbox.message import Message, Payload
from outbox_console.shown import words

#: The views keep so many characters of arguments (outbox.short_repr).
_MAX_REPR: Final = 200


def entry(mask: Mask | None, of: Entry) -> Entry:
    """A row of a list."""
    return replace(
        of,
        args=masked_repr(mask, of.task, "args", of.args, _MAX_REPR),
        kwargs=masked_repr(mask, of.task, "kwargs", of.kwargs, _MAX_REPR),
    )


def parts(mask: Mask | None, of: Message, payload: Payload) -> list[tuple[str, str]]:
    """The parts of a message, each with its title."""
    texts = [
        ("Headers", "headers", payload.headers),
        ("Properties", "properties", payload.properties),
    ]
    if payload.declare != "[]":
        texts.append(("Queues and exchanges it declares", "declare", payload.declare))
    if mask is None:
        body = words.body(payload.body, of.content_encoding)
        return [("Body", body), *((title, words.pretty(text)) for title, _, text in texts)]
    is_whole = len(payload.body) == payload.size
    decoded = words.decoded(payload.body, of.content_encoding) if is_whole else None
    whole = [("Body", "body", decoded), *texts]
    return [
        (title, words.plain(masked_json(mask, of.task, part, text))) for title, part, text in whole
    ]
