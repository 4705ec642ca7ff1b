"""Which schemas of a database hold an outbox; many databases are asked side by side.

One that is away holds up no other, and none is asked again while its answer is still waited for.
"""

import threading
from collections import deque
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Final

from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import RelayError
from outbox_relay.many.lines import Address
from outbox_relay.many.outbox import natural
from outbox_relay.postgres.database import connect, current_url, translated
from outbox_relay.settings import Settings
from outbox_relay.settings.values import identifier

APPLICATION_NAME: Final = "outbox-relay discovery"
#: Connections at a time, each for as long as one query takes.
MAX_AT_ONCE: Final = 12
#: Seconds until those that have not answered are as good as away.
DEADLINE: Final = 3.0

#: A migration is one transaction: where these tables are, the rest of the outbox is. Postgres lets
#: every login see which tables there are.
SCHEMAS: Final = """
SELECT n.nspname FROM pg_catalog.pg_namespace n
WHERE 3 = (SELECT count(*) FROM pg_catalog.pg_class c
           WHERE c.relnamespace = n.oid AND c.relname IN ('message', 'ready', 'receipt')
             AND c.relkind IN ('r', 'p'))
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """The schemas of one database; `trouble` says why they are not known."""

    schemas: tuple[str, ...] = ()
    trouble: str = ""


class Discovery:
    """Asks databases for their schemas."""

    def __init__(self, *, deadline: float = DEADLINE, at_once: int = MAX_AT_ONCE) -> None:
        self._deadline, self._at_once = deadline, at_once
        self._lock = threading.Lock()
        self._asked: set[Address] = set()
        self._trouble: dict[Address, str] = {}
        self._passed_over: set[Address] = set()

    def ask(self, databases: Mapping[Address, Settings]) -> dict[Address, Answer]:
        """An answer of each, after the deadline at the latest."""
        give_up = monotonic() + self._deadline
        with self._lock:
            due = [address for address in databases if address not in self._asked]
            # First those for which there was no time, then those that answered before.
            due.sort(key=lambda a: (a not in self._passed_over, a in self._trouble))
            free = max(0, self._at_once - len(self._asked))
        waiting, answers = deque(due), SimpleQueue[tuple[Address, Answer]]()
        for number in range(min(free, len(due))):
            ContextThread(
                target=self._work,
                args=(waiting, databases, answers, give_up),
                name=f"discovery-{number}",
                daemon=True,  # the end of the process waits for no server that hangs
            ).start()
        found: dict[Address, Answer] = {}
        while len(found) < len(due) and free:
            try:
                address, answer = answers.get(timeout=max(0.0, give_up - monotonic()))
            except Empty:
                break
            found[address] = answer
        for address in databases:
            if address not in found:
                silent = f"it did not answer within {self._deadline:g} s"
                found[address] = Answer(trouble=self._trouble.get(address) or silent)
        with self._lock:
            self._passed_over = set(waiting)
        self._trouble = {a: answer.trouble for a, answer in found.items() if answer.trouble}
        return found

    def _work(
        self,
        waiting: deque[Address],
        databases: Mapping[Address, Settings],
        answers: SimpleQueue[tuple[Address, Answer]],
        give_up: float,
    ) -> None:
        while monotonic() < give_up:
            with self._lock:
                if not waiting:
                    return
                address = waiting.popleft()
                self._asked.add(address)
            try:
                answer = Answer(schemas_of(databases[address]))
            except RelayError as error:
                answer = Answer(trouble=str(error))
            finally:
                with self._lock:
                    self._asked.discard(address)
            answers.put((address, answer))


def schemas_of(settings: Settings) -> tuple[str, ...]:
    """The schemas of that database that hold an outbox. Raises a RelayError."""
    url = current_url(settings)
    with (
        closing(connect(url, APPLICATION_NAME, settings.statement_timeout)) as connection,
        translated(),
    ):
        names = [name for (name,) in connection.execute(SCHEMAS)]
    return tuple(sorted(filter(_servable, names), key=natural))


def _servable(name: str) -> bool:
    """Whether settings could name it: `outbox-migrate` makes no others."""
    try:
        return bool(identifier(name))
    except ValueError:
        return False
