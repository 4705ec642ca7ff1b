"""What happens while the dashboard is recorded, and when: each panel has its turn.

It takes eight minutes, as a message is missing five minutes after it was confirmed.
"""

import gc
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import psycopg

from dashboard_picture.load import Load
from dashboard_picture.programs import environment
from dashboard_picture.stage import Stage

Say = Callable[[str], None]

#: How long it is recorded, and what runs before that: what is just starting is not shown.
SECONDS: Final = 480.0
PRELUDE_SECONDS: Final = 30.0
TICK_SECONDS: Final = 0.5


class Play:
    """The events, as what they do to the stage."""

    def __init__(self, stage: Stage, load: Load) -> None:
        self._stage, self._load = stage, load
        self._forgotten: psycopg.Connection[tuple[object, ...]] | None = None

    def lose_sms(self) -> None:
        """What waits for the worker that has gone is purged; five minutes later it is missing."""
        self._stage.rabbitmq.ctl("purge_queue", "sms")

    def break_broker(self) -> None:
        """SIGKILL."""
        self._stage.rabbitmq.kill()

    def mend_broker(self) -> None:
        """On the same port, with what was confirmed."""
        self._stage.rabbitmq.start()

    def fill_stock(self) -> None:
        """The queue `stock` takes no more: its messages are nacked, and its route is paused."""
        self._stage.rabbitmq.ctl(
            "set_policy", "full", "^stock$", '{"max-length": 0, "overflow": "reject-publish"}',
            "--apply-to", "queues",
        )  # fmt: skip

    def empty_stock(self) -> None:
        """It takes messages again."""
        self._stage.rabbitmq.ctl("clear_policy", "full")

    def raise_alarm(self) -> None:
        """RabbitMQ believes to have used up its memory."""
        self._stage.rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")

    def end_alarm(self) -> None:
        """It has memory again."""
        self._stage.rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")

    def forget_transaction(self) -> None:
        """Somebody's session begins a transaction and goes to lunch."""
        self._forgotten = psycopg.connect(self._stage.shop_url)
        self._forgotten.execute("SELECT txid_current()")

    def end_transaction(self) -> None:
        """Back from lunch."""
        if self._forgotten is not None:
            self._forgotten.close()

    def command(self, *arguments: str) -> Callable[[], None]:
        """Something that an operator types."""

        def run() -> None:
            argv = [str(Path(sys.executable).with_name("outbox-relay")), *arguments]
            settings = environment(self._stage.relay_environment())
            subprocess.run(argv, env=settings, check=True, stdout=subprocess.DEVNULL)

        return run

    def events(self) -> "tuple[Event, ...]":
        """All of them, by their times."""
        stage, load = self._stage, self._load
        reports = ("--queue", "reports")
        missing = ("--missing", "--why", "purged by mistake")
        return (
            Event(15, "the worker of sms and mail is killed", lambda: stage.kill("messages")),
            Event(40, "the queue sms is purged by mistake", self.lose_sms),
            Event(45, "the worker of sms and mail is back", lambda: stage.start("messages")),
            Event(60, "mail is paused, with no end", self.command("pause", "--queue", "mail")),
            Event(80, "RabbitMQ is killed", self.break_broker),
            Event(110, "RabbitMQ is back", self.mend_broker),
            Event(140, "tasks of the next release are sent", load.engraved.set),
            Event(150, "a transaction is forgotten", self.forget_transaction),
            Event(160, "messages have no queue", load.lost.set),
            Event(190, "the queue stock is full", self.fill_stock),
            Event(220, "messages have their queue again", load.lost.clear),
            Event(235, "the queue stock has room", self.empty_stock),
            Event(250, "reports get a rate", self.command("rate", *reports, "--per-second", "2")),
            Event(290, "the transaction is ended", self.end_transaction),
            Event(310, "a memory alarm begins", self.raise_alarm),
            Event(325, "the memory alarm ends", self.end_alarm),
            Event(350, "reports need no rate", self.command("rate", *reports, "--off")),
            Event(370, "a relay is killed", lambda: stage.kill("relay-2")),
            Event(395, "a relay is started in its place", lambda: stage.start("relay-2")),
            Event(410, "mail goes on", self.command("resume", "--queue", "mail")),
            Event(430, "what is missing is sent again", self.command("replay", *missing, "--yes")),
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens so many seconds after the beginning."""

    second: float
    what: str
    act: Callable[[], None]


def perform(stage: Stage, say: Say) -> None:
    """Let everything happen; returns when it is time to ask Prometheus about `SECONDS`."""
    load = Load(stage.shop_url, stage.tenants_url)
    play = Play(stage, load)
    with load.running() as customers:

        def wait(until: float) -> None:
            while monotonic() < until:
                stage.check()
                customers.check()
                sleep(TICK_SECONDS)

        began = monotonic() + PRELUDE_SECONDS
        for event in play.events():
            wait(began + event.second)
            say(f"{event.second:4.0f} s  {event.what}")
            event.act()
        wait(began + SECONDS)
    gc.collect()  # the customers' results, which would ask their server when it has gone
