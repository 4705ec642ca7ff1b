"""While its database is away beat uses up no run of an entry, and sends it once it is back."""

import shelve
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.beat import PersistentScheduler, Scheduler, SchedulingError, Service

from celery_outbox import beat
from servers import Postgres
from tests.fixtures.clock import Clock
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.producer.conftest import Shop, Stored, make_shop

HOURLY = {"hourly": {"task": "shop.add", "schedule": 3600.0, "args": (1, 0)}}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Have the pauses of beat last as long as the test says."""
    clock = Clock()
    monkeypatch.setattr("celery_outbox.beat.monotonic", clock)
    return clock


class Outage:
    """A database whose tables are out of reach until it ends."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._rename("outbox", "elsewhere")

    def end(self) -> None:
        """Have them back."""
        self._rename("elsewhere", "outbox")

    def _rename(self, before: str, after: str) -> None:
        with psycopg.connect(self._database) as connection:
            connection.execute(f"ALTER SCHEMA {before} RENAME TO {after}")


def due(scheduler: Any, *names: str) -> None:
    """Make entries due, as if they had run long ago."""
    for name in names or scheduler.schedule:
        entry = scheduler.schedule[name]
        entry.last_run_at = entry.last_run_at.replace(year=2020)
    scheduler._heap = None


def beating(trap: str, database: str, schedule: Any = HOURLY) -> Any:
    """Return a scheduler all of whose entries are due."""
    shop = make_shop(trap, outbox_database_url=database, beat_schedule=schedule)
    scheduler = Scheduler(shop.app)
    due(scheduler)
    return scheduler


def test_a_server_that_is_killed_and_comes_back(
    trap: str, own_postgres: OwnPostgres, clock: Clock
) -> None:
    """The entry is tried again after each pause, counted when it is stored, and sent once."""
    server: Postgres = own_postgres()
    scheduler = beating(trap, migrated_database(server))
    server.kill()
    for _ in range(3):
        assert scheduler.tick() == beat.PAUSE
        assert scheduler.schedule["hourly"].total_run_count == 0
        clock.now += beat.PAUSE
    server.start()
    scheduler.tick()

    assert scheduler.tick() > beat.PAUSE
    assert scheduler.schedule["hourly"].total_run_count == 1
    assert len(Stored(scheduler.app.conf.outbox_database_url).rows()) == 1


def test_nothing_is_tried_during_a_pause(trap: str, database: str, clock: Clock) -> None:
    """A tick says how long it is still."""
    scheduler, outage = beating(trap, database), Outage(database)
    scheduler.tick()
    outage.end()
    clock.now += 2

    assert scheduler.tick() == beat.PAUSE - 2
    with pytest.raises(SchedulingError, match="hourly waits"):
        scheduler.apply_async(scheduler.schedule["hourly"], producer=scheduler.producer)
    assert Stored(database).rows() == []


def test_all_that_is_due_is_sent(trap: str, database: str, clock: Clock) -> None:
    """Each entry once, whichever was tried in vain; what is not due stays."""
    schedule = {f"each {n}": {**HOURLY["hourly"], "args": (n, 0)} for n in range(4)}
    scheduler = beating(trap, database, schedule)
    scheduler.schedule["each 3"].last_run_at = scheduler.schedule["each 3"].default_now()
    outage = Outage(database)
    for _ in range(3):
        scheduler.tick()
        clock.now += beat.PAUSE
    outage.end()
    while not scheduler.tick():
        pass

    assert sorted(Stored(database).args()) == [0, 1, 2]
    runs = {name: entry.total_run_count for name, entry in scheduler.schedule.items()}
    assert runs == {"each 0": 1, "each 1": 1, "each 2": 1, "each 3": 0}


def test_every_attempt_has_the_same_id(
    trap: str, database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome of one may be unknown: an idempotent task runs once all the same."""
    scheduler, outage = beating(trap, database), Outage(database)
    tried: list[str] = []
    send = type(scheduler.app).send_task

    def send_task(self: Any, *args: Any, task_id: str, **options: Any) -> Any:
        tried.append(task_id)
        return send(self, *args, task_id=task_id, **options)

    monkeypatch.setattr(type(scheduler.app), "send_task", send_task)
    scheduler.tick()
    clock.now += beat.PAUSE
    outage.end()
    scheduler.tick()
    due(scheduler)
    scheduler.tick()

    first, second, next_run = tried
    assert first == second != next_run
    assert [row.message_id for row in Stored(database).rows()] == [first, next_run]


@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
def test_beat_that_is_ended_meanwhile(
    trap: str, database: str, tmp_path: Path, clock: Clock, interrupt: type[BaseException]
) -> None:
    """Its file says that the run is still due: the next beat sends it."""
    file = str(tmp_path / "schedule")
    shop = make_shop(trap, outbox_database_url=database, beat_schedule=HOURLY)
    service: Any = Service(shop.app, schedule_filename=file, scheduler_cls=PersistentScheduler)
    due(service.scheduler)
    outage = Outage(database)
    ticks = service.scheduler.tick

    def tick() -> float:
        ticks()
        raise interrupt

    service.scheduler.tick = tick
    service.start()
    outage.end()
    again: Any = PersistentScheduler(shop.app, schedule_filename=file)
    again.tick()
    again.close()

    assert Stored(database).args() == [1]


def test_beat_that_is_killed_meanwhile(
    trap: str, database: str, tmp_path: Path, clock: Clock
) -> None:
    """So says its file at any time: Celery writes it down with the first attempt."""
    file = str(tmp_path / "schedule")
    shop = make_shop(trap, outbox_database_url=database, beat_schedule=HOURLY)
    scheduler: Any = PersistentScheduler(shop.app, schedule_filename=file)
    due(scheduler)
    Outage(database)
    scheduler.tick()
    scheduler._store.dict.close()  # what a process leaves behind that writes nothing more
    with shelve.open(file) as written:
        entry = written["entries"]["hourly"]

    assert (entry.total_run_count, entry.last_run_at.year) == (0, 2020)


def test_a_signal_within_the_send(
    trap: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it cuts off is not counted either."""
    scheduler = beating(trap, database)

    def store(*_: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    def end(*_: Any) -> None:
        raise SystemExit

    before = signal.signal(signal.SIGUSR1, end)
    monkeypatch.setattr("celery_outbox.stores.database.Database.store", store)
    with pytest.raises(SystemExit):
        scheduler.tick()
    signal.signal(signal.SIGUSR1, before)

    assert scheduler.schedule["hourly"].total_run_count == 0
    assert scheduler.schedule["hourly"].is_due().is_due


def test_what_can_never_be_sent_is_a_run(trap: str, database: str) -> None:
    """An entry with a fault of its own holds up no other, and is not tried again and again."""
    bad = {"bad": {"task": "shop.add", "schedule": 3600.0, "args": (object(), 0)}}
    scheduler = beating(trap, database, {**bad, **HOURLY})
    while not scheduler.tick():
        pass

    assert Stored(database).args() == [1]
    assert [each.total_run_count for each in scheduler.schedule.values()] == [1, 1]


class OwnTick(Scheduler):
    """A scheduler such as redbeat's, with a tick of its own, which counts in apply_async()."""

    def tick(self, *_: Any, **__: Any) -> Any:
        """Look at all entries, and say when to look again."""
        for entry in [*self.schedule.values()]:
            if entry.is_due()[0]:
                self.apply_entry(entry, producer=self.producer)
        return self.max_interval

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send one that is due."""
        with suppress(SchedulingError):
            self.apply_async(entry, producer=producer)


def test_a_scheduler_with_a_tick_of_its_own(trap: str, database: str, clock: Clock) -> None:
    """It counts what was stored, and looks again as soon; after the outage as seldom as before."""
    shop: Shop = make_shop(trap, outbox_database_url=database, beat_schedule=HOURLY)
    scheduler: Any = OwnTick(shop.app, max_interval=60)
    due(scheduler)
    outage = Outage(database)
    assert scheduler.tick() == beat.PAUSE
    assert scheduler.schedule["hourly"].total_run_count == 0
    clock.now += beat.PAUSE
    outage.end()

    assert scheduler.tick() == 60
    assert scheduler.schedule["hourly"].total_run_count == 1
    assert Stored(database).args() == [1]


def test_an_app_without_an_outbox_does_what_it_did() -> None:
    """There a send that fails is a run: this is Celery's."""
    app: Any = Celery("plain", broker="memory://", set_as_current=False)
    app.conf.beat_schedule = HOURLY
    scheduler: Any = Scheduler(app)
    fail: Callable[..., Any] = lambda *_, **__: 1 / 0  # noqa: E731 - shorter
    app.send_task = fail
    due(scheduler)
    scheduler.tick()

    assert scheduler.schedule["hourly"].total_run_count == 1
