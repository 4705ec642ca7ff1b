"""Brings dead letters home, on a thread and on connections of its own: no claim waits for it.

What the broker gave up is dead in the outbox, with the broker's reason, before it leaves the
broker. What is not of this outbox is left where it is and counted; its queue is read again when the
number of messages in it has changed, and where a look costs these nothing now and then: somebody
else may have taken theirs, and one of ours have come.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from time import monotonic
from typing import Final, NamedTuple

import structlog

from outbox_relay.broker.dead_letters import DeadLetters
from outbox_relay.core.dead_letter import DeadLetter
from outbox_relay.core.rounds import Quiet, Rounds, never
from outbox_relay.errors import RelayError
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.watch import Watch
from outbox_relay.postgres.home import Home

log = structlog.get_logger()

#: Between two rounds, in seconds; and after failures, up to:
EVERY: Final = 10.0
EVERY_QUIET: Final = 60.0  # while nothing moves
SOON: Final = 2.0  # where some came: others may be on their way
MAX_PAUSE: Final = 300.0
#: How many are asked about at a time, and the most that a round leaves in a queue.
BATCH: Final = 200
MAX_LEFT: Final = 10_000
#: When messages that are still work are looked at again, in seconds: twice as long each time, up to
BUSY_AGAIN: Final = 10.0
#: And what is left, though as many lie there, where it bears any number of looks, in seconds.
LEFT_AGAIN: Final = 300.0
MAX_BUSY: Final = 600.0
#: A queue that is not there, or gives no answer, is looked for half as often each time, down to
#: once in so many seconds: RabbitMQ closes a channel, and logs a line, over each such look.
MAX_MISSING: Final = 300.0


class _Queue:
    """What is known of a queue since it was read last."""

    def __init__(self) -> None:
        self.left = 0  # that lie there, and are not to be read again
        self.busy = False
        self.pause = BUSY_AGAIN
        self.again = self.left_again = 0.0
        self.closed = False  # another look could cost somebody's message

    def is_due(self, waiting: int, now: float) -> bool:
        """Whether to read it: there is something else than at the end of the last round."""
        if self.closed:
            return False
        return waiting != self.left or (self.busy and now >= self.again)

    def may_have_changed(self, now: float) -> bool:
        """Whether others may lie there by now, though as many."""
        return not self.closed and now >= self.left_again


class _Missing(NamedTuple):
    """A queue that was not there, and when it is looked for again."""

    again: float
    pause: float


class Homecoming(Watch):
    """Goes round every so often; a context manager that stops it."""

    def __init__(
        self,
        open_home: Callable[[], Home],
        open_dead_letters: Callable[[], DeadLetters],
        metrics: Metrics,
        *,
        every: float = EVERY,
        quiet: Quiet = never,
    ) -> None:
        super().__init__("dead-letters")
        self._rounds = Rounds(EVERY_QUIET, quiet)
        self._open_home, self._open_dead_letters = open_home, open_dead_letters
        self._metrics = metrics
        self._every = every
        self._queues: dict[str, _Queue] = {}
        self._missing: dict[str, _Missing] = {}

    def _run(self) -> None:
        pause, failing, came = self._every, False, 0
        while not self._stopped.wait(pause):
            if not (self._rounds.are_due(monotonic()) or came):
                pause = self._every
                continue
            try:
                came = self.round()
                pause = min(SOON, self._every) if came else self._every
                failing = False
            except RelayError as error:
                if not failing:
                    log.warning("dead_letters_unread", reason=str(error))
                pause, failing, came = min(MAX_PAUSE, 2 * pause), True, 0

    def round(self) -> int:
        """Bring home what lies in the queues known now; returns how many came.

        Raises a RelayError where that fails.
        """
        came = 0
        with self._open_home() as home:
            if not home.is_mine():
                self._metrics.dead_letters_left.clear()
                return 0
            names = list(dict.fromkeys((*self._queues, *home.queues())))
            if not (looked_for := self._looked_for(names)):
                return 0
            with closing(self._open_dead_letters()) as letters:
                for name in looked_for:
                    waiting = letters.waiting(name)
                    self._note_missing(name, missing=waiting is None)
                    if waiting is None and name not in self._queues:
                        continue
                    queue = self._queues.setdefault(name, _Queue())
                    if not waiting:
                        queue.left = 0
                        self._metrics.dead_letters_left.labels(name).set(0)
                        continue
                    if queue.is_due(waiting, now := monotonic()):
                        came += self._empty(name, queue, home, letters)
                    elif queue.may_have_changed(now):
                        queue.left_again = now + LEFT_AGAIN
                        if letters.may_look_again(name):
                            came += self._empty(name, queue, home, letters)
        return came

    def _looked_for(self, names: Sequence[str]) -> list[str]:
        """Those that are there, or may be there by now."""
        now = monotonic()
        self._missing = {name: self._missing[name] for name in names if name in self._missing}
        return [n for n in names if n not in self._missing or self._missing[n].again <= now]

    def _note_missing(self, name: str, *, missing: bool) -> None:
        before = self._missing.pop(name, None)
        if missing:
            pause = min(MAX_MISSING, 2 * before.pause) if before else self._every
            self._missing[name] = _Missing(monotonic() + pause, pause)

    def _empty(self, name: str, queue: _Queue, home: Home, letters: DeadLetters) -> int:
        """Bring home all of one queue that is ours; returns how many."""
        home_by_kind: Counter[str] = Counter()
        verdicts: Counter[str] = Counter()
        queue.left, queue.busy = 0, False
        while queue.left < MAX_LEFT and (read := list(letters.read(name, BATCH))):
            answers = home.bring(read)
            done: list[DeadLetter] = []
            for letter in read:
                verdict = answers.get(letter.message_id or "", "unknown")
                verdicts[verdict] += 1
                if verdict in ("home", "known"):
                    done.append(letter)
                    home_by_kind[letter.kind] += verdict == "home"
                elif letter.endangered:
                    queue.closed = True
            letters.done(done)
            queue.left += len(read) - len(done)
        self._note(name, queue, +home_by_kind, verdicts)
        return verdicts["home"]

    def _note(self, name: str, queue: _Queue, kinds: Counter[str], verdicts: Counter[str]) -> None:
        for kind, count in kinds.items():
            self._metrics.dead_letters.labels(kind).inc(count)
        self._metrics.dead_letters_left.labels(name).set(verdicts["unknown"])
        if kinds:
            log.warning(
                "dead_letters_home", queue=name, messages=kinds.total(), reasons=dict(kinds)
            )
        if verdicts["unknown"]:
            log.warning(
                "dead_letters_left", queue=name, messages=verdicts["unknown"], closed=queue.closed
            )
        queue.busy = verdicts["busy"] > 0
        queue.pause = min(MAX_BUSY, 2 * queue.pause) if queue.busy else BUSY_AGAIN
        queue.again = monotonic() + queue.pause
        queue.left_again = monotonic() + LEFT_AGAIN
