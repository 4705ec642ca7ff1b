"""Where a message says which trace it belongs to: the W3C `traceparent` among its headers. Pure.

Headers are looked at as they are stored, as JSON text: nothing is parsed for the many messages
that have no sampled trace, and no header is changed. Within a string of JSON a quote has a
backslash before it, so that what an argument says cannot be taken for a header.
"""

import re
from typing import Final, NamedTuple

#: The end of the header's name. Looked for from the end, where propagators add it.
NAME: Final = b'traceparent"'
#: As W3C Trace Context has it: version, trace, span, flags; and a trace that is sampled.
_SAMPLED: Final = re.compile(
    rb'"traceparent"\s*:\s*"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f][13579bdf])"'
)
_STATE: Final = re.compile(rb'"tracestate"\s*:\s*"([\x20\x21\x23-\x5b\x5d-\x7e]*)"')


#: From the opening quote of its value to the last digit of its flags, and that where it is sampled.
_FLAG: Final = 55
_ODD: Final = frozenset(b"%c" % digit for digit in b"13579bdf")


class Parent(NamedTuple):
    """The span that sent a message, as the headers name it."""

    traceparent: str
    tracestate: str = ""


def may_be_sampled(headers: bytes) -> bool:
    """Whether to look closer. Every message is asked, so it finds the flag and reads no more."""
    at = headers.rfind(NAME)
    if at <= 0:
        return False
    flag = headers.find(b'"', at + len(NAME)) + _FLAG
    return headers[flag : flag + 1] in _ODD


def parent_of(headers: bytes) -> Parent | None:
    """The sampled span that sent a message with these headers, if one did."""
    at = headers.rfind(NAME)
    found = _SAMPLED.match(headers, at - 1) if at > 0 else None
    if found is None:
        return None
    state = _STATE.search(headers)
    return Parent(found[1].decode(), state[1].decode() if state else "")
