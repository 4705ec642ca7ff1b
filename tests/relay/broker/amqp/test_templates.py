"""Templates fill in what the long way would have written, or nothing."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outbox_relay.broker.amqp.properties import encoded
from outbox_relay.broker.amqp.templates import LEARN_EVERY, MAX_TEMPLATES, Templates
from outbox_relay.core.message import Message
from tests.relay.messages import a_message

#: What stands between its quotes as it is.
plain = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'))
names = st.text(st.sampled_from("abcdefgh_-."), min_size=1, max_size=12)
fixed = st.sampled_from([None, True, False, 0, 7, [None, None], {}, {"x": "y"}, [1, "two", 3.5]])
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(-(2**60), 2**60)


def taught(*messages: Message) -> Templates:
    """Templates that have learnt from these."""
    templates = Templates()
    for message in messages:
        templates.learn(message, encoded(message, 0.0))
    return templates


def filled(templates: Templates, message: Message) -> bytes | None:
    """The properties by template, whose size is told rightly; None where none matches."""
    pieces = templates.fill(message)
    if pieces is None:
        return None
    joined = b"".join(pieces[0])
    assert len(joined) == pieces[1]
    return joined


@st.composite
def of_one_shape(draw: st.DrawFn) -> tuple[Message, Message]:
    """Two messages whose headers and properties differ in their texts and numbers alone."""
    kinds = draw(st.dictionaries(names, st.sampled_from([plain, numbers, fixed]), max_size=8))
    same = {name: draw(fixed) for name, kind in kinds.items() if kind is fixed}
    pair = []
    for _ in range(2):
        headers = {n: same[n] if k is fixed else draw(k) for n, k in kinds.items()}
        given = {"correlation_id": draw(plain)[:255], "reply_to": draw(plain)[:255]}
        properties = json.dumps({**given, "delivery_mode": 2, "priority": 0})
        pair.append(a_message(headers=json.dumps(headers), properties=properties))
    return pair[0], pair[1]


@settings(max_examples=300, deadline=None)
@given(of_one_shape())
def test_what_is_filled_in_is_what_the_long_way_writes(pair: tuple[Message, Message]) -> None:
    """Of another message of the same shape, and of a quite different one if it should match."""
    first, second = pair
    templates = taught(first)

    assert filled(templates, first) == encoded(first, 0.0)
    assert filled(templates, second) in (encoded(second, 0.0), None)
    assert filled(templates, a_message()) in (encoded(a_message(), 0.0), None)


def test_tasks_of_celery_share_a_template() -> None:
    """Name, ids, arguments and origin may differ, also in length and script; the rest may not."""
    headers = {"task": "shop.bill", "id": "1", "eta": None, "retries": 0, "argsrepr": "()"}
    other = {**headers, "task": "shop.ship", "id": "22", "argsrepr": "(1, 'x')" + "x" * 1500}
    templates = taught(a_message(headers=json.dumps(headers)))

    for changed in (other, {**headers, "argsrepr": "é"}):
        message = a_message(headers=json.dumps(changed, ensure_ascii=False), body=b"", id=7)
        assert filled(templates, message) == encoded(message, 0.0)
    for changed in ({**headers, "retries": 1}, {**headers, "eta": "2030"}, {**headers, "more": 1}):
        assert filled(templates, a_message(headers=json.dumps(changed))) is None


def test_numbers_may_vary_as_texts_do() -> None:
    """A time of day in a header, say: each is encoded by its own size and kind."""
    templates = taught(a_message(headers='{"at": 1700000000.25, "n": 1000}'))

    for text in ('{"at": 1.5, "n": -4}', '{"at": 3, "n": 9007199254740993}'):
        message = a_message(headers=text)
        assert filled(templates, message) == encoded(message, 0.0)


@pytest.mark.parametrize(
    "columns",
    [
        {"headers": '{"x": "\\u00e9"}'},
        {"headers": '{"x":"y"}'},
        {"headers": '{"x": "y", "x": "z"}'},
        {"headers": '{"x": {"__type__": "datetime", "__value__": "2030-01-01T00:00:00"}}'},
        {"headers": json.dumps({"x": "y" * 3000})},
        {"headers": json.dumps({f"x{n}": None for n in range(1000)})},
        {"properties": '{"expiration": "1000"}'},
        {"properties": '{"reply_to": "r", "correlation_id": "c"}'},
    ],
)
def test_what_is_unusual_goes_the_long_way(columns: dict[str, Any]) -> None:
    """Escapes, other spacing, names twice, kombu's tags, great size, what ages, other order."""
    message = a_message(**columns)

    assert filled(taught(message), message) is None


def test_what_does_not_fit_the_template_goes_the_long_way() -> None:
    """There it is refused, or written as what it is."""
    templates = taught(a_message(headers='{"n": 100}', properties='{"reply_to": "r"}'))

    assert filled(templates, a_message(headers=json.dumps({"n": 2**70}))) is None
    too_long = a_message(headers='{"n": 100}', properties=json.dumps({"reply_to": "r" * 256}))
    assert filled(templates, too_long) is None


def test_of_many_shapes_those_of_late_are_kept() -> None:
    """A bounded number, whatever rows come; and learning is rare where it does not help."""
    shapes = [a_message(headers=json.dumps({f"h{n}": None})) for n in range(1000)]
    templates = taught(*shapes)

    known = [n for n, shape in enumerate(shapes) if filled(templates, shape)]

    assert len(known) == MAX_TEMPLATES
    assert known[-1] == 1000 // LEARN_EVERY * LEARN_EVERY - 1


def test_a_shape_in_use_is_not_forgotten() -> None:
    """Others come and go behind it."""
    templates = Templates()
    for number in range(MAX_TEMPLATES * LEARN_EVERY * 2):
        other = a_message(headers=json.dumps({f"h{number}": None}))
        templates.learn(other, encoded(other, 0.0))
        if number == 0:
            templates.learn(a_message(), encoded(a_message(), 0.0))
        assert filled(templates, a_message()) == encoded(a_message(), 0.0)
