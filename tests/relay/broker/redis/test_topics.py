"""Topics: kombu's own answer for every binding and key, and none of the time it may take."""

from time import process_time
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual.exchange import TopicExchange

from outbox_relay.broker.redis.topics import matches

WORDS: Final = st.lists(st.sampled_from(["#", "*", "a", "ab", "", "(", "é"]), max_size=5)
KEYS: Final = st.lists(st.sampled_from(["a", "ab", "b", "", "(", "é", "#"]), max_size=6)


@given(WORDS.map(".".join), KEYS.map(".".join))
def test_they_match_as_kombu_matches_them(binding: str, routing_key: str) -> None:
    """A worker that publishes to the same exchange reaches the same queues."""
    kombu: Any = TopicExchange(None)

    expected = kombu._match(kombu.key_to_pattern(binding), routing_key)

    assert matches(binding, routing_key) == bool(expected)


@pytest.mark.parametrize(
    ("binding", "routing_key"),
    [
        (".".join(["#"] * 60 + ["x"]), "." * 255),
        (".".join(["#", "*"] * 60 + ["x"]), "a." * 127),
        ("a*" * 100 + "b", "a" * 255),
    ],
)
def test_no_binding_takes_long(binding: str, routing_key: str) -> None:
    """A row may bring both: its relay must be able to go on to the next."""
    start = process_time()

    assert not matches(binding, routing_key)

    assert process_time() - start < 1.0
