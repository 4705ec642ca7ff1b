"""The limit counts confirms as a broker sends them, or the limit would be wrong."""

import pytest

from bench.lab import Unbelievable
from bench.measurements.limit import ACK, Confirms


def ack(tag: int, *, multiple: bool = False) -> bytes:
    """A basic.ack frame."""
    return ACK.pack(1, 1, 13, 60, 80, tag, multiple, 0xCE)


def test_tags_count_once_in_any_order() -> None:
    """Single confirms out of order and a multiple one that covers some of them: each tag once."""
    confirms = Confirms()

    confirms.feed(ack(2) + ack(5))
    assert confirms.count == 2
    confirms.feed(ack(3, multiple=True))
    assert confirms.count == 4
    confirms.feed(ack(4))
    assert confirms.count == 5


def test_a_frame_may_arrive_in_pieces() -> None:
    """Bytes of an incomplete frame wait for the rest."""
    confirms = Confirms()

    confirms.feed(ack(1)[:9])
    assert confirms.count == 0
    confirms.feed(ack(1)[9:])
    assert confirms.count == 1


@pytest.mark.parametrize("answer", [b"", ACK.pack(1, 1, 13, 60, 120, 1, 0, 0xCE)])
def test_anything_but_confirms_ends_the_run(answer: bytes) -> None:
    """A refusal or a closed connection is no measurement."""
    with pytest.raises(Unbelievable):
        Confirms().feed(answer)
