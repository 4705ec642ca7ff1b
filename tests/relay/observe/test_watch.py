"""What looks beside the loop goes on looking, whatever a look meets."""

import threading

import pytest
from structlog.testing import capture_logs

from outbox_relay.observe import watch as module
from outbox_relay.observe.watch import Watch

DEADLINE = 30.0


class Clumsy(Watch):
    """Fails over something private at its first look."""

    def __init__(self) -> None:
        super().__init__("clumsy")
        self.looks = 0
        self.looked_again = threading.Event()

    def _run(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise KeyError("4111-1111")
        self.looked_again.set()
        self._stopped.wait()


def test_a_fault_of_ours_is_not_the_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, by its kind and its place and nothing else, and the watch begins anew."""
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)
    with capture_logs() as logs, Clumsy() as clumsy:
        assert clumsy.looked_again.wait(DEADLINE)

    [said] = logs
    assert (said["event"], said["watch"]) == ("watch_failed", "clumsy")
    assert said["reason"].startswith("KeyError at test_watch.py:")
    assert "4111" not in str(said)
