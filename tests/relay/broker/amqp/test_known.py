"""What is known of a broker takes bounded memory, and what is in use stays known."""

from outbox_relay.broker.amqp.known import Known


def test_what_is_in_use_stays_and_the_rest_goes() -> None:
    """However many others come by."""
    known = Known(max_size=100, max_needs=10)
    known.add(("used", ""))
    for number in range(1000):
        known.add((f"once {number}", ""))
        assert ("used", "") in known

    kept = [number for number in range(1000) if (f"once {number}", "") in known]
    assert kept
    assert kept == list(range(kept[0], 1000))
    assert len(kept) <= 20


def test_its_bound_is_in_characters() -> None:
    """A few long declarations weigh as much as many short ones."""
    known = Known(max_size=100, max_needs=10)
    for number in range(5):
        known.add(("x" * 99, str(number)))

    assert known.has_all([("x" * 99, "4")])
    assert ("x" * 99, "3") in known
    assert ("x" * 99, "2") not in known


def test_what_is_gone_is_not_known() -> None:
    """In whichever generation it was."""
    known = Known(max_size=100, max_needs=1)
    for need in (("a", ""), ("b", "")):
        known.add(need)
        known.discard(need)
        assert need not in known
