"""How far the declaration of what one message needs has come. Pure.

The broker answers each step, or closes the channel over it. Another existing definition, or a
missing right, is the operator's choice: the entity is left as it is, and the next one follows. A
limit is waited for.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from outbox_relay.broker.amqp.methods import Step
from outbox_relay.broker.declines import DECLINES
from outbox_relay.core.message import Reason

#: What one message needs: its declarations, and the exchange it names.
Need = tuple[str, str]

#: Codes by which a broker says that a declaration makes no sense; it closes the connection. 530 is
#: not among them: it says that there is no channel left for us.
NONSENSE: Final = frozenset({501, 502, 503, 505, 540})
#: It says neither what is wrong nor with what: newer brokers have no transient queues and say it
#: of them. If it is the broker itself, connecting again will show.
INTERNAL_ERROR: Final = 541
#: What RabbitMQ says of a queue that exists, on a node that does not run now.
NODE_DOWN: Final = "down or inaccessible"
#: There are as many queues or exchanges as there may be. RabbitMQ begins like that over nothing
#: else, and cuts off the end where the name is long; LavinMQ has no such beginning.
_AT_ITS_LIMIT: Final = re.compile(r"PRECONDITION_FAILED - cannot declare |.*limit .*is reached$")
NOT_FOUND: Final = 404
#: So many connections may break under one errand before it is given up.
MAX_BREAKS: Final = 2


class Verdict(NamedTuple):
    """The end of an errand: what it was for can be had, or cannot for a reason."""

    need: Need
    reason: Reason | None = None
    detail: str = ""


@dataclass(slots=True)
class Errand:
    """The steps that are left, and the channel they are taken on."""

    need: Need
    steps: Sequence[Step]
    position: int = 0
    channel: int = 0
    since: float = 0.0  # when the step was sent
    breaks: int = 0
    alone: bool = False  # one of several under which a connection was closed
    declined: str = ""  # what the broker said of the first declaration that it refused

    @property
    def step(self) -> Step:
        """What the broker is to answer next."""
        return self.steps[self.position]

    def answered(self) -> Verdict | None:
        """The step is done; the verdict, if it was the last."""
        return self._skip(1)

    def channel_closed(self, code: int, text: str) -> Verdict | None:
        """The broker did not do the step."""
        step = self.step
        if NODE_DOWN in text or _AT_ITS_LIMIT.match(text):
            detail = f"declaring {step.entity!r} failed: {code} {text}"
            return Verdict(self.need, Reason.UNANSWERED, detail)
        if step.passive:
            if code != NOT_FOUND or not step.needed:
                return self._skip(1)  # we may not look, or publishing says it better
            detail = f"404 NOT_FOUND: no exchange {step.entity!r}"
            if self.declined:
                detail += f"; what would have declared it was refused: {self.declined}"
            return Verdict(self.need, Reason.UNROUTABLE, detail)
        self._decline(f"{code} {text}")
        return self._skip(step.left)

    def connection_closed(self, code: int, text: str) -> Verdict | None:
        """The broker closed the connection, over this errand and no other."""
        entity = self.step.entity
        if code in NONSENSE:
            detail = f"declaring {entity!r} failed: {code} {text}"
            return Verdict(self.need, Reason.INVALID, detail)
        if code == INTERNAL_ERROR:
            self._decline(f"{code} {text}")
            return self._skip(self.step.left)
        return self.broken(f"{code} {text}")

    def broken(self, why: str) -> Verdict | None:
        """The connection is gone, over whatever; the errand is run again, but not for ever."""
        self.breaks += 1
        if self.breaks < MAX_BREAKS:
            return None
        detail = f"declaring {self.step.entity!r} failed: {why}"
        return Verdict(self.need, Reason.UNANSWERED, detail)

    def unanswered(self, seconds: float) -> Verdict:
        """It has waited for too long: the queue hangs, or the node that has it."""
        detail = f"declaring {self.step.entity!r}: no reply within {seconds:.0f} s"
        return Verdict(self.need, Reason.UNANSWERED, detail)

    def _decline(self, why: str) -> None:
        DECLINES.add(self.step.entity, why)
        self.declined = self.declined or why

    def _skip(self, count: int) -> Verdict | None:
        self.position += count
        return Verdict(self.need) if self.position >= len(self.steps) else None
