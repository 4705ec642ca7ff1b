"""Something asked of every outbox: several databases at a time, in each one outbox after another.

However many outboxes there are, a database is asked over one connection at a time.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from outbox_relay.errors import RelayError, SchemaError, StatementFailed
from outbox_relay.many import alike
from outbox_relay.many.outbox import Outbox
from outbox_relay.operator.session import Session
from outbox_relay.settings import Settings

T = TypeVar("T")

#: Databases at a time.
AT_ONCE: Final = 8


def grouped(outboxes: Iterable[Outbox]) -> list[list[Outbox]]:
    """Those of one database, reached in the same way, beside each other."""
    groups: dict[Hashable, list[Outbox]] = {}
    for outbox in outboxes:
        groups.setdefault(alike.for_questions(outbox.settings), []).append(outbox)
    return list(groups.values())


def ask_each(
    outboxes: Sequence[Outbox], ask: Callable[[Session, Settings], T], role: str
) -> dict[str, T | RelayError]:
    """The answer of each outbox, by its name; an error where there is none."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers: dict[str, T | RelayError] = {}
        for group in pool.map(lambda each: _ask_group(each, ask, role), grouped(outboxes)):
            answers |= group
    return answers


def _ask_group(
    group: Sequence[Outbox], ask: Callable[[Session, Settings], T], role: str
) -> dict[str, T | RelayError]:
    answers: dict[str, T | RelayError] = {}
    session: Session | None = None
    try:
        for at, outbox in enumerate(group):
            if session is None:
                try:
                    session = Session.open(outbox.settings, role=role)
                except RelayError as error:  # it would be no other for the rest
                    return answers | dict.fromkeys((each.name for each in group[at:]), error)
            session.schema = outbox.settings.schema
            try:
                answers[outbox.name] = ask(session, outbox.settings)
            except (SchemaError, StatementFailed) as error:
                answers[outbox.name] = error
            except RelayError as error:
                answers[outbox.name] = error
                session.connection.close()
                session = None
    finally:
        if session is not None:
            session.connection.close()
    return answers
