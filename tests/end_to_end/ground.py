"""Where losses are tried: an outbox, an inbox, a broker, and the real programs between them."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outbox_relay.configuration import from_environment
from outbox_relay.operator.audit import find
from outbox_relay.operator.missing import Inquiry
from tests.end_to_end import charging
from tests.end_to_end.charging import CHARGE, HELD
from tests.fixtures.programs import Program, WorkerFactory
from tests.fixtures.rows import ids_in
from tests.fixtures.waiting import wait_until
from tests.worker.ledger import Ledger

#: Tasks that some workers know, and others do not.
NEW = "shop.new"


@dataclass(frozen=True, slots=True)
class Size:
    """How many tasks there are, how many are struck, and how long to wait for all of them."""

    tasks: int
    struck: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ground:
    """A relay runs already, and no worker yet."""

    ledger: Ledger
    url: str
    size: Size
    folder: Path
    start_worker: WorkerFactory

    def send(self, count: int, task: str = CHARGE) -> set[str]:
        """Commit tasks, and wait until the broker has confirmed them."""
        sent = {
            str(id)
            for (id,) in self.ledger.run(
                "SELECT outbox.enqueue(%s) FROM generate_series(1, %s)", task, count
            )
        }
        self.confirmed(sent)
        return sent

    def confirmed(self, ids: set[str]) -> None:
        """Wait until the broker has confirmed these, and nothing waits any more."""

        def all_sent() -> bool:
            [(waiting,)] = self.ledger.run("SELECT pending FROM outbox.stats")
            return not waiting and ids_in(self.ledger.dsn, "sent") >= ids

        wait_until(all_sent, self.size.seconds, "all confirms")

    def worker(self, *options: str, **environment: str) -> Program:
        """A worker that leaves receipts."""
        own = {
            "CHARGING_BROKER": self.url,
            "CHARGING_DATABASE": self.ledger.dsn,
            "CHARGING_GATE": str(self.folder),
        }
        return self.start_worker(
            charging.__name__,
            "--pool=threads",
            "--concurrency=2",
            *options,
            **{**own, **environment},
        )

    def run_others(self, **environment: str) -> set[str]:
        """All but those to be struck are sent and run; their worker is told to end."""
        worker = self.worker(**environment)
        ran = self.send(self.size.tasks - self.size.struck)
        self.finished(ran)
        worker.stop()
        return ran

    def at_the_gate(self) -> int:
        """How many times a task came to the gate."""
        return len(list(self.folder.iterdir()))

    def open_the_gate(self) -> None:
        """What waits there goes on."""
        (self.folder / "open").touch()

    def relay(self, *arguments: str) -> str:
        """What the command line prints."""
        own = {"OUTBOX_DATABASE_URL": self.ledger.dsn, "OUTBOX_BROKER_URL": self.url}
        ended = subprocess.run(
            [sys.executable, "-m", "outbox_relay", *arguments],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=False,
            timeout=self.size.seconds,
        )
        assert ended.stderr == ""
        return ended.stdout

    def watched(self) -> None:
        """Workers have left receipts of these tasks before."""
        self.ledger.run("SELECT inbox.watch(ARRAY[%s, %s, %s])", CHARGE, HELD, NEW)

    def finished(self, ids: set[str]) -> None:
        """Wait until all of these have had their effect."""

        def all_there() -> bool:
            return set(self.ledger.effects()) >= ids

        wait_until(all_there, self.size.seconds, "all effects")

    def missing(self) -> set[str]:
        """The ids of what is missing, as audit finds them."""
        settings = from_environment({"OUTBOX_DATABASE_URL": self.ledger.dsn}, need_broker=False)
        [(now,)] = self.ledger.run("SELECT now()")
        found = find(settings, Inquiry(until=now))
        return {each.message_id for each in found.missing}

    def named(self, struck: set[str]) -> dict[str, dict[str, Any]]:
        """Wait for the last receipts; what audit names is then exactly this, by message id."""
        wait_until(lambda: self.missing() <= struck, self.size.seconds, "the last receipts")
        answer = json.loads(self.relay("audit", "--older-than", "0s", "--json"))
        found = {each["message_id"]: each for each in answer["missing"]}
        assert found.keys() == struck
        return found

    def gone(self, struck: set[str], reason: str, *, certain: bool) -> None:
        """Exactly these are gone, each with this in its reason."""
        for each in self.named(struck).values():
            assert (each["place"], each["certain"]) == ("gone", certain), each
            assert reason in each["reason"], each

    def came_home(self, struck: set[str], reason: str) -> None:
        """Exactly these are dead in the outbox, with this reason, and nothing is missing."""
        wait_until(
            lambda: ids_in(self.ledger.dsn, "dead") >= struck, self.size.seconds, "dead letters"
        )
        assert ids_in(self.ledger.dsn, "dead") == struck
        reasons = self.ledger.run("SELECT DISTINCT last_error FROM outbox.dead")
        assert all(words.startswith(reason) for (words,) in reasons), reasons
        self.named(set())

    def replay(self, struck: set[str], ran: set[str]) -> None:
        """Send again what is missing: afterwards each effect is there once."""
        answer = self.relay("replay", "--missing", "--older-than", "0s", "--yes")
        assert answer == f"{len(struck)} pending again\n"
        self.healed(struck | ran)

    def retry(self, struck: set[str], ran: set[str]) -> None:
        """Send again what is dead: afterwards each effect is there once."""
        self.relay("retry", "--all", "--yes")
        self.healed(struck | ran)

    def healed(self, everything: set[str]) -> None:
        """Each has had its effect, and had it once; nothing is missing or dead."""
        self.finished(everything)
        assert sorted(self.ledger.effects()) == sorted(everything)
        self.named(set())
        assert ids_in(self.ledger.dsn, "dead") == set()
