"""Poison suspects wait each once, none for ever behind others, within bounds."""

from outbox_relay.core.suspects import MAX_WAITING, MAX_WAITING_BYTES, Suspects
from tests.relay.messages import a_message, messages


def waiting(count: int) -> Suspects:
    """So many suspects, with ids from 1."""
    suspects = Suspects()
    for message in messages(count):
        suspects.add(message)
    return suspects


def test_they_are_taken_from_both_ends() -> None:
    """Good ones stand around a block of bad ones: they do not wait for all of it."""
    suspects = waiting(5)

    taken = [*suspects.take(2), *suspects.take(9)]

    assert [message.id for message in taken] == [1, 5, 2, 4, 3]
    assert len(suspects) == 0


def test_one_claimed_again_waits_once() -> None:
    """Under its new claim: the old one could not settle it."""
    suspects = waiting(2)

    suspects.add(a_message(id=1, claim_id=8))

    assert {(message.id, message.claim_id) for message in suspects.take(9)} == {(2, 7), (1, 8)}


def test_what_is_not_ours_is_forgotten() -> None:
    """Also where it does not wait here."""
    suspects = waiting(3)

    suspects.forget([2, 99])

    assert {message.id for message in suspects.take(9)} == {1, 3}


def test_they_are_full_by_number() -> None:
    """One less has room, and taking one makes room."""
    suspects = waiting(MAX_WAITING)
    assert suspects.full

    suspects.take(1)

    assert not suspects.full


def test_they_are_full_by_size() -> None:
    """Whatever way one leaves, its size is given back."""
    suspects = Suspects()
    for id_ in (1, 2):
        assert not suspects.full
        suspects.add(a_message(id=id_, body=bytes(MAX_WAITING_BYTES // 2)))
    assert suspects.full

    suspects.forget([1])
    assert not suspects.full
    suspects.add(a_message(id=2, body=b""))
    others = a_message(body=b"").size  # headers, properties and declarations of a message
    suspects.add(a_message(id=3, body=bytes(MAX_WAITING_BYTES - 2 * others - 1)))

    assert not suspects.full
