"""Customers who order, and the demo's own memory of what they committed.

The proof compares the shop with this memory: it is kept here, apart from outbox and database.
"""

import random
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import Self
from uuid import uuid4

import psycopg

from shop.database import Connection
from shop.orders import CHANNELS, choose_gift_wrap, place

_ITEMS = ("teapot", "kettle", "lamp", "chair", "atlas", "globe", "clock", "violin")
_CUSTOMERS = 2
_PAUSE_SECONDS = 0.11
#: Between two orders of one, where it goes on for hours: a worker on a small machine keeps up.
QUIET_SECONDS = 1.5
#: Tasks of the shop, by the table their effects go to.
TABLES = ("reservation", "shipment", "invoice", "email", "notification", "gift")


class CardDeclined(Exception):
    """The payment fails at the last moment: the whole order rolls back."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one order must lead to: rows per table."""

    id: str
    effects: dict[str, int]
    #: Tasks sent in a savepoint that was rolled back.
    taken_back: int = 0

    @property
    def tasks(self) -> int:
        """How many tasks the order sends, itself or through its canvas."""
        return sum(self.effects.values())


@dataclass(slots=True)
class Memory:
    """What was committed and what was not, as the customers saw it."""

    committed: list[Order] = field(default_factory=list)
    rolled_back: list[Order] = field(default_factory=list)


class Customers:
    """Threads that order until they are told to stop."""

    def __init__(self, database_url: str, pause: float = _PAUSE_SECONDS) -> None:
        self.memory = Memory()
        self._pause = pause
        self._database_url = database_url
        self._closing = Event()
        self._threads = ThreadPoolExecutor(_CUSTOMERS)
        self._running: list[Future[None]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._threads.shutdown()

    def start(self) -> None:
        """Let them order."""
        seeds = range(_CUSTOMERS)
        self._running = [self._threads.submit(self._order, seed) for seed in seeds]

    def stop(self) -> None:
        """Let each finish the order it is at; raise what went wrong for one."""
        self._closing.set()
        for customer in self._running:
            customer.result()

    def check(self) -> None:
        """Raise what went wrong for one, if anything did."""
        for customer in self._running:
            if customer.done():
                customer.result()

    def _order(self, seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(self._database_url) as connection:
            while not self._closing.wait(self._pause):
                self._order_once(connection, chance)

    def _order_once(self, connection: Connection, chance: random.Random) -> None:
        items = chance.sample(_ITEMS, chance.randint(2, 4))
        wraps, keeps = chance.random() < 0.4, chance.random() < 0.5
        order = Order(
            uuid4().hex,
            {
                "reservation": len(items),
                "shipment": 1,
                "invoice": 1,
                "email": 1,
                "notification": len(CHANNELS),
                "gift": int(wraps and keeps),
            },
            taken_back=int(wraps and not keeps),
        )
        declined = chance.random() < 0.2
        try:
            with connection.transaction():
                place(connection, order.id, f"customer {chance.randint(1, 999)}", items)
                if wraps:
                    choose_gift_wrap(connection, order.id, keeps_it=keeps)
                if declined:
                    raise CardDeclined
        except CardDeclined:
            self.memory.rolled_back.append(order)
        else:
            self.memory.committed.append(order)
