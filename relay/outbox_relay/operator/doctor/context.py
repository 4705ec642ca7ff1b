"""What every check of the database is given."""

from collections.abc import Callable
from dataclasses import dataclass

from outbox_relay.core.finding import Finding
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Context:
    """A session to ask on, and the settings it was opened with."""

    session: Session
    settings: Settings


#: A check: everything that it found, in the order in which it is shown. It changes nothing.
Check = Callable[[Context], list[Finding]]
