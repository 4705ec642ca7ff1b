"""Fault 45: the database is put back to an earlier moment, under traffic."""

import subprocess

import pytest

from servers import Postgres
from tests.faults.lab import Lab, LabOn


@pytest.mark.fault(45)
def test_a_backup_is_restored(lab: Lab, lab_on: LabOn, postgres: Postgres) -> None:
    """What was not sent at its moment is sent again, with its ids; new ids collide with none."""
    relay = lab.relay()
    with lab.producer():
        lab.under_way(300)
        dump = run(postgres, "pg_dump", "--format=custom", lab.database)
        lab.under_way(300)
    lab.wait_until_sent()
    relay.stop()
    before = lab.queue.arrived().copy()
    assert before.total() == len(before)

    restored = lab_on(postgres.create_database(template="template0"))
    run(postgres, "pg_restore", "--dbname", restored.database, entered=dump)
    kept = {id_ for (id_,) in restored.run("SELECT message_id FROM outbox.message")}
    unsent = {id_ for (id_,) in restored.run("SELECT message_id FROM outbox.pending")}
    restored.ledger = lab.ledger
    with restored.fault(lambda: kept < before.keys()):
        restored.relay()

    again = restored.finish(duplicates=len(unsent), note=f"{len(unsent)} sent again")
    assert again.duplicated <= len(unsent)


def run(postgres: Postgres, program: str, *arguments: str, entered: bytes = b"") -> bytes:
    """Run a program of the server's and return what it prints."""
    command = [str(postgres.binaries / program), *arguments]
    done = subprocess.run(command, input=entered, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
