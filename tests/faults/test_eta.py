"""An ETA beyond Redis's visibility timeout: plain Celery runs the task twice, from the outbox once.

A worker that holds a message until its time does not acknowledge it meanwhile, and Redis hands it
out again. The outbox holds it instead, so no worker ever does.
"""

from pathlib import Path

import psycopg
from celery import Celery

from celery_outbox import OutboxCelery
from tests.fixtures.programs import RelayFactory, WorkerFactory
from tests.fixtures.rows import states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

#: Seconds, several times the visibility timeout.
COUNTDOWN = 5


def test_only_what_the_outbox_holds_runs_once(
    own_valkey: OwnValkey,
    database: str,
    relay: RelayFactory,
    celery_worker: WorkerFactory,
    tmp_path: Path,
) -> None:
    """The same task, the same worker, the same ETA, sent either way."""
    server, notes = own_valkey(), tmp_path / "notes"
    celery_worker("tests.faults.appointments", BROKER_URL=server.url, NOTES=str(notes))
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=server.url)

    with Celery(broker=server.url, set_as_current=False) as plain:
        plain.send_task("appointments.note", ["plain"], countdown=COUNTDOWN)
    ours = OutboxCelery(set_as_current=False)
    with psycopg.connect(database) as connection, ours.outbox.transaction(connection):
        ours.send_task("appointments.note", ["outbox"], countdown=COUNTDOWN)

    def words() -> list[str]:
        return notes.read_text().split() if notes.exists() else []

    wait_until(lambda: words().count("plain") > 1 and "outbox" in words(), 60, "plain, run twice")
    assert words().count("outbox") == 1
    assert states(database) == {"pending": 0, "scheduled": 0, "sent": 1, "dead": 0}
