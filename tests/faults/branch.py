"""A bank's servers, relay and workers: killed one by one, kept alive as by a supervisor."""

import os
import random
import re
import signal
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
from kombu import Connection

from servers import Postgres, RabbitMQ, Valkey
from servers.processes import is_alive
from tests.faults import bank
from tests.fixtures.postgres import migrated_database
from tests.fixtures.programs import Program, Relay, worker_command
from tests.fixtures.waiting import wait_until

_DEAD_SECONDS = 30.0
_TICK_SECONDS = 0.05
_PER_WORKER = 2

_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Branch:
    """Everything that runs, apart from the teller."""

    def __init__(self, postgres: Postgres, broker: RabbitMQ | Valkey, folder: Path) -> None:
        self.postgres, self.broker = postgres, broker
        self.database = migrated_database(postgres)
        self._folder = folder
        self._url = broker.url() if isinstance(broker, RabbitMQ) else broker.url
        self._session: psycopg.Connection[Any] | None = None
        self.run(bank.TABLES)
        self.relay = self.relay_command("run")
        self.relay.wait_ready()
        self._programs: list[Program] = [self.relay]
        self.workers: list[Program] = []

    def start_workers(self, count: int = 2) -> None:
        """Start workers of two processes each."""
        self.workers = [self._worker() for _ in range(count)]
        for worker in self.workers:
            worker.wait_for_output(" ready.")

    def stop_workers(self) -> None:
        """End the workers in order: each finishes what it has begun."""
        for worker in self.workers:
            assert worker.stop() == 0

    def close(self) -> None:
        """Kill what still runs."""
        for program in self._programs:
            program.kill()
        if self._session is not None:
            self._session.close()

    def relay_command(self, *arguments: str) -> Relay:
        """Start a command of the relay on this bank."""
        environment = {"OUTBOX_DATABASE_URL": self.database, "OUTBOX_BROKER_URL": self._url}
        return Relay(arguments, self._folder, {**environment, "OUTBOX_LEASE": "2s"})

    def _worker(self) -> Program:
        environment = {"OUTBOX_DATABASE_URL": self.database, "BANK_BROKER_URL": self._url}
        options = (f"--concurrency={_PER_WORKER}",)
        worker = Program(*worker_command(bank.__name__, self._folder, environment, *options))
        self._programs.append(worker)
        return worker

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own, on a session that is renewed when lost."""
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self.database, autocommit=True)
        cursor = self._session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []

    def numbers(self, table: str) -> list[int]:
        """What a table of the bank holds, sorted."""
        return [number for (number,) in self.run(f"SELECT number FROM bank.{table} ORDER BY 1")]

    def now(self) -> str:
        """The database's time, as the relay's commands read it."""
        [(now,)] = self.run(
            "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US')"
        )
        return str(now)

    def count(self, statement: str) -> int | None:
        """Count something; None while the database is away."""
        try:
            return int(self.run(f"SELECT {statement}")[0][0])
        except psycopg.OperationalError:
            return None

    def executed(self) -> int:
        """Transfers done so far; 0 while the database is away."""
        return self.count("count(*) FROM bank.done") or 0

    def unsent(self) -> int | None:
        """Messages that wait in the outbox, dead ones included."""
        return self.count("pending + scheduled + dead FROM outbox.stats")

    def unfinished(self) -> int | None:
        """Messages that wait in the broker, on Redis also with workers; None without a queue."""
        with Connection(self._url) as connection:
            channel: Any = connection.default_channel  # kombu types what all transports have
            if isinstance(self.broker, Valkey):
                return int(channel.client.llen("celery") + channel.client.hlen("unacked"))
            try:
                return int(channel.queue_declare("celery", passive=True).message_count)
            except connection.channel_errors:  # a new node, before a worker or relay came to it
                return None

    def keep_alive(self) -> None:
        """Do what a supervisor does: start anew what has ended, which some workers do."""
        sleep(_TICK_SECONDS)
        if self.relay.process.poll() is not None:
            self.relay = self.relay_command("run")
            self._programs.append(self.relay)
        for place, worker in enumerate(self.workers):
            if worker.process.poll() is not None:
                self.workers[place] = self._worker()

    def kill(self, fault: str, chance: random.Random) -> None:
        """SIGKILL one thing, and see that it is dead."""
        getattr(self, f"_kill_{fault}")(chance)

    def _kill_child(self, chance: random.Random) -> None:
        """A process that runs tasks."""
        self._kill_pid(chance.choice(wait_until(self._children, _DEAD_SECONDS, "a child")))

    def _kill_parent(self, chance: random.Random) -> None:
        """A worker's main process; its children may finish what they are at."""
        worker = chance.choice(self.workers)
        worker.process.kill()
        assert worker.wait() == -signal.SIGKILL

    def _kill_relay(self, _: random.Random) -> None:
        self.relay.kill()
        assert self.relay.wait() == -signal.SIGKILL

    def _kill_broker(self, _: random.Random) -> None:
        before = self.broker.process.pid
        self.broker.kill()
        assert not is_alive(before)
        self.broker.start()

    def _kill_backend(self, chance: random.Random) -> None:
        """A session of a worker, relay or teller: Postgres then restarts, with crash recovery."""
        before, deadline = self.crashes(), monotonic() + _DEAD_SECONDS
        while self.crashes() == before and monotonic() < deadline:
            pids = wait_until(self._sessions, _DEAD_SECONDS, "a session")
            self._kill_pid(chance.choice(pids))  # unless it has just ended by itself
            with suppress(AssertionError):
                wait_until(lambda: self.crashes() > before, 2, "the server to notice")
        assert self.crashes() > before
        wait_until(lambda: self.count("1"), _DEAD_SECONDS, "the end of crash recovery")

    def _sessions(self) -> list[int]:
        with suppress(psycopg.OperationalError):
            return [int(pid) for (pid,) in self.run(_SESSIONS)]
        return []

    def _children(self) -> list[int]:
        parents = [w.process.pid for w in self.workers if w.process.poll() is None]
        return [child for parent in parents for child in children_of(parent)]

    def _kill_pid(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), _DEAD_SECONDS, f"the end of {pid}")

    def absorbed(self) -> int:
        """How many duplicates were answered by the inbox, as all workers logged it."""
        return sum(program.output().count("ran before: answering") for program in self._programs)

    def crashes(self) -> int:
        """How many times Postgres noticed that a session was killed."""
        return len(re.findall("was terminated by signal 9", self.postgres.log.read_text()))


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    with suppress(OSError):
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
