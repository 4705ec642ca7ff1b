"""What was confirmed is settled sooner or later, and forgotten no sooner."""

from collections.abc import Sequence
from typing import cast

from outbox_relay.core.message import Message
from outbox_relay.loop.refused import CATCH_UP_EVERY
from outbox_relay.loop.settling import Settling
from outbox_relay.postgres.store import Store
from tests.relay.messages import messages


class Rows:
    """A store in which some rows are locked."""

    def __init__(self, *locked: int) -> None:
        self.locked, self.asked, self.forgotten = set(locked), 0, list[int]()

    def settle_late(self, late: Sequence[Message]) -> set[int]:
        """The store's."""
        self.asked += 1
        return self.locked & {message.id for message in late}

    def forget(self, settled: Sequence[Message]) -> None:
        """The store's."""
        self.forgotten += [message.id for message in settled]


def catch_up(settling: Settling, rows: Rows, now: float, *, again: bool = False) -> None:
    """Try it."""
    settling.catch_up(cast("Store", rows), now, again=again)


def test_what_is_locked_is_tried_again_until_it_is_settled() -> None:
    """Once a second; what comes to be late meanwhile is tried at once."""
    settling, rows, done = Settling(forget=False), Rows(1, 2), messages(3)
    settling.passed_over(done, [1])
    catch_up(settling, rows, 10.0)
    catch_up(settling, rows, 10.0 + CATCH_UP_EVERY / 2)
    assert rows.asked == 1
    settling.passed_over(done, [2])
    catch_up(settling, rows, 10.0 + CATCH_UP_EVERY / 2)
    catch_up(settling, rows, 10.0 + CATCH_UP_EVERY / 2, again=True)
    assert rows.asked == 3
    assert settling.late

    rows.locked = set()
    catch_up(settling, rows, 10.0 + 2 * CATCH_UP_EVERY)

    assert not settling.late
    assert rows.forgotten == []


def test_only_what_is_settled_is_forgotten() -> None:
    """Where nothing is kept."""
    settling, rows = Settling(forget=True), Rows(2)
    settling.passed_over(messages(3), [1, 2])

    catch_up(settling, rows, 0.0)
    assert rows.forgotten == [1]
    rows.locked = set()
    catch_up(settling, rows, CATCH_UP_EVERY)

    assert rows.forgotten == [1, 2]
