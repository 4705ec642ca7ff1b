"""When claims are renewed, and which: mostly none, as messages are confirmed long before. Pure."""

from typing import Final

#: How many times within a lease claims are renewed, those of the newest interval excepted.
RENEWALS_PER_LEASE: Final = 3


class Renewal:
    """Remembers which claims there were at the last renewal; `now` is in monotonic seconds."""

    def __init__(self, lease: float, first_claim_id: int) -> None:
        self._interval = lease / RENEWALS_PER_LEASE
        self._renewed = 0.0
        self._renewable = first_claim_id  # older claims were already held at the last renewal

    def next(self, now: float, claim_id: int) -> int | None:
        """Claims older than this are to be renewed now, the next one being `claim_id`; or None.

        After a pause of this process, all of them: what no other relay has claimed meanwhile is
        ours again.
        """
        if (since := now - self._renewed) < self._interval:
            return None
        self._renewed = now
        before, self._renewable = self._renewable, claim_id
        return claim_id if since >= 2 * self._interval else before
