"""Orders transfers and remembers, apart from the database, which of them were committed.

A COMMIT whose reply was lost is looked up by the orders it wrote, never guessed and never repeated.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Event, Thread
from time import monotonic

import psycopg

from tests.faults import bank

_PER_TRANSACTION = 40
_ROLLED_BACK = 0.1
_OUTAGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement of money."""

    number: int
    source: int
    target: int
    amount: int


@dataclass(slots=True)
class Memory:
    """What the teller knows."""

    committed: list[Transfer] = field(default_factory=list)
    rolled_back: list[Transfer] = field(default_factory=list)
    commits_looked_up: int = 0

    def balances(self) -> dict[int, int]:
        """What every account must hold."""
        balances = dict.fromkeys(range(bank.ACCOUNTS), 0)
        for transfer in self.committed:
            balances[transfer.source] -= transfer.amount
            balances[transfer.target] += transfer.amount
        return balances


class ChangeOfMind(Exception):
    """Rolls a transaction back."""


class Teller:
    """A thread that orders transfers until `wanted` are committed, `ahead` of their execution."""

    def __init__(self, database: str, chance: random.Random, wanted: int, ahead: int) -> None:
        self.memory = Memory()
        self.executed = 0
        self._database, self._chance = database, chance
        self._wanted, self._ahead = wanted, ahead
        self._leaving = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._work)

    def __enter__(self) -> "Teller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def finished(self) -> bool:
        """Whether all is ordered; raises what went wrong."""
        if self._error is not None:
            raise self._error
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            for transfers in self._batches():
                keep = self._chance.random() > _ROLLED_BACK
                self._order(transfers, keep=keep and bool(self.memory.rolled_back))
        except Exception as error:
            self._error = error

    def _batches(self) -> Iterator[list[Transfer]]:
        number = 0
        while (missing := self._wanted - len(self.memory.committed)) > 0:
            while len(self.memory.committed) - self.executed > self._ahead:
                if self._leaving.wait(0.02):
                    return
            count = min(missing, self._chance.randint(1, _PER_TRANSACTION))
            numbers = range(number, number + count)
            number += count
            yield [self._transfer(each) for each in numbers]

    def _transfer(self, number: int) -> Transfer:
        source, target = self._chance.sample(range(bank.ACCOUNTS), 2)
        return Transfer(number, source, target, self._chance.randint(1, 999))

    def _order(self, transfers: list[Transfer], *, keep: bool) -> None:
        give_up = monotonic() + _OUTAGE_SECONDS
        while True:
            try:
                self._order_once(transfers, keep=keep)
            except ChangeOfMind:
                self.memory.rolled_back += transfers
                return
            except psycopg.OperationalError:
                if self._leaving.wait(0.1) or monotonic() > give_up:
                    raise
            else:
                self.memory.committed += transfers
                return

    def _order_once(self, transfers: list[Transfer], *, keep: bool) -> None:
        """One transaction: the orders, and a task for each."""
        with psycopg.connect(self._database) as connection:
            there = "SELECT count(*) FROM bank.ordered WHERE number = %s"
            if connection.execute(there, (transfers[0].number,)).fetchone() != (0,):
                self.memory.commits_looked_up += 1
                return
            with bank.app.outbox.using(connection):
                for each in transfers:
                    connection.execute("INSERT INTO bank.ordered VALUES (%s)", (each.number,))
                    bank.transfer.delay(each.number, each.source, each.target, each.amount)
            if not keep:
                raise ChangeOfMind
