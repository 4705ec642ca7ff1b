"""A message's sender is read from its headers as they are stored."""

import json

import pytest

from outbox_relay.observe.tracing.parent import Parent, may_be_sampled, parent_of

SENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SENT[:-1] + "0"


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_sampled_sender_is_found(separators: tuple[str, str]) -> None:
    """However the JSON is spaced, with its tracestate."""
    own = {"task": "a", "traceparent": SENT, "tracestate": "vendor=1,other=é"}
    text = json.dumps({**own, "tracestate": "vendor=1,other=2"}, separators=separators)
    assert parent_of(text.encode()) == Parent(SENT, "vendor=1,other=2")


def test_one_level_deeper_is_found_as_well() -> None:
    """Where Celery puts headers that the caller gave."""
    text = json.dumps({"task": "a", "headers": {"traceparent": SENT}})
    assert parent_of(text.encode()) == Parent(SENT)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": UNSAMPLED},
        {"traceparent": None},
        {"traceparent": 1},
        {"traceparent": "00-0af7-b7ad-01"},
        {"traceparent": SENT.upper()},
        {"traceparent": [SENT]},
        {"x-traceparent": SENT},
        {"other": "traceparent"},
        {"sentry-trace": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"},
        {"argsrepr": f'({{"traceparent": "{SENT}"}},)'},
        {"argsrepr": f'\\"traceparent": "{SENT}"'},
    ],
    ids=str,
)
def test_nobody_else_is(headers: dict[str, object]) -> None:
    """What is not sampled, not W3C's, another's header, or what an argument says."""
    assert parent_of(json.dumps(headers).encode()) is None


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("flags", ["00", "01", "02", "03", "0a", "0b", "fe", "ff"])
def test_the_quick_look_misses_nobody(flags: str, space: str) -> None:
    """It says yes wherever the closer look finds a sender, and no where a trace is not sampled."""
    headers = f'{{"a": 1, "traceparent":{space}"{SENT[:-2]}{flags}", "b": "x"}}'.encode()
    assert may_be_sampled(headers) == (parent_of(headers) is not None) == (int(flags, 16) % 2 == 1)


@pytest.mark.parametrize(
    "headers", [b"", b"{}", b'traceparent"', b'{"traceparent"', b'{"traceparent":"']
)
def test_the_quick_look_survives_anything(headers: bytes) -> None:
    """Also what is cut off."""
    assert not may_be_sampled(headers)


def test_random_flags_are_no_hindrance() -> None:
    """Level 2 of the standard has another flag: the trace id is random."""
    text = json.dumps({"traceparent": SENT[:-1] + "3"})
    assert parent_of(text.encode()) == Parent(SENT[:-1] + "3")
