"""A line: a sender, its broker and a worker, and between them a relay, or nothing as in Celery."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
from celery.signals import before_task_publish

from tests.end_to_end.canvas.apps import Plan, make_app
from tests.end_to_end.canvas.journal import Journal, Note
from tests.end_to_end.canvas.outcome import Outcome, Refused, outcome
from tests.end_to_end.canvas.shape import Shape
from tests.end_to_end.canvas.steps import Steps
from tests.fixtures.programs import Relay, Worker, worker_command
from tests.fixtures.waiting import wait_until

#: For everything that was sent at a time to come to its end.
REST_SECONDS: Final = 100.0
#: Prefork, as Celery's threads share one ban on get(), by which chords fail now and then.
POOL: Final = ("--pool=prefork", "--concurrency=2")


class ChangeOfMind(Exception):
    """What rolls a transaction back."""


@dataclass(frozen=True, slots=True)
class Line:
    """What sends shapes, and sees what becomes of them."""

    name: str
    app: Any
    journal: Journal
    #: Of the outbox: empty where there is none.
    database: str

    def play(self, shapes: Mapping[str, Shape]) -> "Running":
        """Send each of them, in a transaction of its own if there is an outbox."""
        prefix = uuid4().hex[:8]
        results: dict[str, Any] = {}
        with self._transactions() as transaction:
            for name, shape in shapes.items():
                with transaction():
                    results[name] = self._send(shape, f"{prefix} {name}")
        return Running(self, prefix, results)

    def play_and_roll_back(self, shapes: Mapping[str, Shape]) -> "Running":
        """Send each of them in a transaction that comes to nothing."""
        prefix = uuid4().hex[:8]
        with self._transactions() as transaction:
            for name, shape in shapes.items():
                with suppress(ChangeOfMind), transaction():
                    self._send(shape, f"{prefix} {name}", counted=False)
                    raise ChangeOfMind
        return Running(self, prefix, dict.fromkeys(shapes))

    def _send(self, shape: Shape, run: str, *, counted: bool = True) -> Any:
        count = 0

        def add(*_: Any, **__: Any) -> None:
            nonlocal count
            count += 1
            if not self.database:
                self.journal.sent()

        canvas = shape.make(Steps(self.app, run))
        before_task_publish.connect(add)
        try:
            return canvas.apply_async(shape.args)
        except Exception as error:  # as some canvases do that Celery does not take
            return Refused(repr(error))
        finally:
            before_task_publish.disconnect(add)
            if self.database and counted:
                self.journal.sent(count)

    def close(self) -> None:
        """Have no result that is collected later say goodbye to a Redis that is gone by then."""
        self.app.backend.remove_pending_result = lambda result: result

    @contextmanager
    def _transactions(self) -> Iterator[Any]:
        """Yield what opens a transaction, where there is an outbox."""
        if not self.database:
            yield suppress
            return
        with psycopg.connect(self.database) as connection:
            yield lambda: self.app.outbox.transaction(connection)


@dataclass(frozen=True, slots=True)
class Running:
    """Shapes that were sent."""

    line: Line
    prefix: str
    results: Mapping[str, Any]

    def notes(self, name: str) -> list[Note]:
        """Return what the tasks of a shape have noted."""
        return self.line.journal.read(f"{self.prefix} {name}")

    def outcomes(self) -> dict[str, Outcome]:
        """Return what they came to, once every message that followed has been run."""
        what = f"{self.line.name} to have run all that was sent"
        wait_until(self.line.journal.at_rest, REST_SECONDS, what)
        return {name: outcome(result, self.notes(name)) for name, result in self.results.items()}


def start_worker(plan: Plan, folder: Path, *, database: str = "") -> Worker:
    """Start the worker of a line; with a database it has an outbox of its own."""
    environment = {"CANVAS_PLAN": json.dumps(asdict(plan))}
    if database:
        environment["OUTBOX_DATABASE_URL"] = database
    module = "tests.end_to_end.canvas.worker"
    return Worker(*worker_command(module, folder, environment, *POOL))


def start_relay(plan: Plan, folder: Path, database: str) -> Relay:
    """Start the relay of a line."""
    environment = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": plan.broker}
    return Relay(("run",), folder, environment)


def sender(plan: Plan, database: str = "") -> Line:
    """Return what sends on a line; through an outbox it knows of no broker."""
    app, journal = make_app(replace(plan, broker="") if database else plan)
    return Line(plan.line, app, journal, database)


def differing(plain: Mapping[str, Outcome], ours: Mapping[str, Outcome]) -> Iterable[str]:
    """Name the shapes that came to something else, and what."""
    for name, seen in ours.items():
        if seen != plain[name]:
            yield f"{name}: plain {plain[name]}, through the outbox {seen}"
