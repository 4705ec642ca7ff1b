"""A declaration that is refused again and again is one line a minute."""

from structlog.testing import capture_logs

from outbox_relay.broker.declines import LOG_EVERY, Declines


def test_refused_declarations_are_summed_up() -> None:
    """The first at once, with its reason; the others are counted in the next line."""
    now = [0.0]
    declines = Declines(lambda: now[0])
    with capture_logs() as events:
        for _ in range(720):
            declines.add("celery", "406 inequivalent arg")
            now[0] += LOG_EVERY / 240
        declines.add("celery", "406 inequivalent arg")

    assert [event["declarations"] for event in events] == [1, 240, 240, 240]
    assert {event["reason"] for event in events} == {"406 inequivalent arg"}
