"""Faults 25 to 28: producers that die, change their mind, are late, or never hear of a COMMIT."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from celery_outbox import OutboxCelery
from tests.faults.lab import DEADLINE, Lab
from tests.faults.ledger import insert
from tests.fixtures.programs import Program
from tests.fixtures.waiting import wait_until

#: What a task is sent to, how a transaction begins, and how a savepoint does.
Scopes = tuple[Any, Callable[[], Any], Callable[[], Any]]
#: A producer that never comes to its COMMIT.
DIES = """
import sys, time, psycopg
connection = psycopg.connect(sys.argv[1])
connection.execute("INSERT INTO outbox.message (message_id, task, routing_key, body, content_type,"
    " content_encoding) SELECT n, 't', 'celery', '1', 'application/json', 'utf-8'"
    " FROM generate_series(1, 100) n")
print("inserted", flush=True)
time.sleep(600)
"""


@pytest.mark.smoke
@pytest.mark.fault(25)
def test_a_commit_of_unknown_outcome(lab: Lab) -> None:
    """It had happened: its message is sent, and the data beside it refuses to be written twice."""
    lab.run("CREATE TABLE orders (number int PRIMARY KEY)")
    [id_] = ids = lab.ledger.new_ids(1)
    with no_standby_answers(lab), lab.fault(lambda: ids == lab.ledger.unknown):
        connection = psycopg.connect(lab.database)
        pid = connection.info.backend_pid
        order(connection, 1, id_)
        lab.ledger.unknown |= ids
        with commit_in_background(connection) as outcome:
            wait_until(lambda: waits_for_a_standby(lab, pid), DEADLINE, "a COMMIT that waits")
            lab.run("SELECT pg_terminate_backend(%s)", pid)
        assert isinstance(outcome[0], psycopg.OperationalError)
    with psycopg.connect(lab.database) as again, pytest.raises(psycopg.errors.UniqueViolation):
        order(again, 1, id_)
    lab.relay()

    assert lab.finish(duplicates=0).recovered == ids


@pytest.mark.fault(28)
def test_an_early_id_commits_late(lab: Lab) -> None:
    """Later ids are sent long before; it is not skipped."""
    lab.relay()
    with lab.fault(lambda: late_ids < {id_ for (id_,) in lab.run("SELECT id FROM outbox.message")}):
        with psycopg.connect(lab.database) as slow:
            late = lab.ledger.new_ids(10)
            insert(slow, late)
            later = lab.commit(1000)
            wait_until(lambda: lab.queue.arrived().keys() >= later, DEADLINE, "the later ones")
            slow.commit()
        lab.ledger.committed |= late
        late_ids = {
            id_
            for (id_,) in lab.run(
                "SELECT id FROM outbox.message WHERE message_id = ANY (%s)", list(late)
            )
        }

    lab.finish(duplicates=0)


@pytest.mark.fault(26)
def test_killed_before_its_commit(lab: Lab, tmp_path: Path) -> None:
    """The rows it had inserted never were."""
    program = Program([sys.executable, "-c", DIES, lab.database], tmp_path, os.environ)
    lab.relay()
    with lab.fault(lambda: program.process.returncode == -signal.SIGKILL):
        program.wait_for_output("inserted")
        program.kill()
    assert lab.run("SELECT 1 FROM outbox.message") == []

    lab.finish(duplicates=0)


@pytest.mark.fault(27)
@pytest.mark.parametrize("library", ["psycopg", "sqlalchemy", "django"])
def test_scopes_that_roll_back(lab: Lab, django_database: str, library: str) -> None:
    """Of a nest of transactions and savepoints, only those that survive send."""
    app = OutboxCelery("shop", set_as_current=False)
    kept, dropped = lab.ledger.committed, lab.ledger.rolled_back
    lab.relay()

    def send(into: set[str]) -> None:
        [id_] = lab.ledger.new_ids(1)
        into.add(id_)
        app.send_task("shop.bill", task_id=id_)

    with lab.fault(lambda: len(dropped) == 20 * 4), SCOPES[library](lab.database) as scopes:
        target, outer, inner = scopes
        for _ in range(20):
            with outer(), app.outbox.using(target):
                send(kept)
                with inner():
                    send(kept)
                    with suppress(ChangeOfMind), inner():
                        send(dropped)
                        with inner():
                            send(dropped)
                        raise ChangeOfMind
                    send(kept)
            with suppress(ChangeOfMind), outer(), app.outbox.using(target):
                send(dropped)
                with inner():
                    send(dropped)
                raise ChangeOfMind

    lab.finish(duplicates=0)


@contextmanager
def no_standby_answers(lab: Lab) -> Iterator[None]:
    """Every COMMIT on the server waits for a standby that does not exist."""
    lab.run("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    lab.run("SELECT pg_reload_conf()")
    shown = "SELECT 1 FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting <> ''"
    wait_until(lambda: lab.run(shown), DEADLINE, "the setting")
    try:
        yield
    finally:
        lab.run("ALTER SYSTEM RESET synchronous_standby_names")
        lab.run("SELECT pg_reload_conf()")
        wait_until(lambda: not lab.run(shown), DEADLINE, "an end of the setting")


@contextmanager
def commit_in_background(connection: psycopg.Connection[Any]) -> Iterator[list[Exception | None]]:
    """COMMIT on another thread; at the end of the block, how it went."""
    outcome: list[Exception | None] = []

    def commit() -> None:
        try:
            connection.commit()
        except psycopg.Error as error:
            outcome.append(error)
        else:
            outcome.append(None)

    thread = Thread(target=commit)
    thread.start()
    yield outcome
    thread.join()


def waits_for_a_standby(lab: Lab, pid: int) -> bool:
    """Whether that session's COMMIT is written, and not yet answered."""
    state = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
    return bool(lab.run(state, pid))


def order(connection: psycopg.Connection[Any], number: int, message_id: str) -> None:
    """Business data and its message, in the connection's transaction."""
    connection.execute("INSERT INTO orders VALUES (%s)", (number,))
    insert(connection, [message_id])


class ChangeOfMind(Exception):
    """Rolls a scope back."""


@contextmanager
def with_psycopg(url: str) -> Iterator[Scopes]:
    """A psycopg connection's own blocks."""
    with psycopg.connect(url) as connection:
        yield connection, connection.transaction, connection.transaction


@contextmanager
def with_sqlalchemy(url: str) -> Iterator[Scopes]:
    """A SQLAlchemy session's."""
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    with Session(engine) as session:
        yield session, session.begin, session.begin_nested
    engine.dispose()


@contextmanager
def with_django(url: str) -> Iterator[Scopes]:
    """Django's `atomic` is both."""
    yield "default", transaction.atomic, transaction.atomic


SCOPES = {"psycopg": with_psycopg, "sqlalchemy": with_sqlalchemy, "django": with_django}
