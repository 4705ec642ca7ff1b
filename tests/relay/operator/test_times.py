"""Tools show every time that Postgres has, also those that Python has not."""

import pytest

from outbox_relay.cli.output import print_json
from outbox_relay.configuration import from_environment
from outbox_relay.operator.session import Session
from outbox_relay.operator.text import printable
from outbox_relay.settings.durations import how_long
from tests.relay.conftest import Cli, Outbox


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC"])
def test_a_time_beyond_python_is_text(
    database: str, time: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people and for programs."""
    settings = from_environment({"OUTBOX_DATABASE_URL": database}, need_broker=False)
    with Session.open(settings) as session:
        found = session.value("SELECT %(time)s::timestamptz", time=time)

    assert printable(found).startswith(time.split()[0])
    print_json(found)
    assert time.split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("time", ["infinity", "20000-01-01"])
def test_a_message_that_is_due_beyond_python(cli: Cli, outbox: Outbox, time: str) -> None:
    """Lists, show, status and doctor end without a traceback."""
    message_id = outbox.add(eta="1 hour")
    constraints = outbox.connection.execute(
        """
        SELECT conrelid::regclass::text, conname FROM pg_constraint
        WHERE contype = 'c' AND conrelid IN ('outbox.message'::regclass, 'outbox.parked'::regclass)
          AND pg_get_constraintdef(oid) ~ 'available_at'
        """
    ).fetchall()
    for table, constraint in constraints:  # as in schemas that do not bound times
        outbox.connection.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"')
    outbox.connection.execute("UPDATE outbox.parked SET available_at = %s::timestamptz", (time,))

    assert time in cli("scheduled").out
    assert time in cli("scheduled", "--json").json()[0]["available_at"]
    assert time in cli("show", message_id).out
    assert cli("status").code == 0
    assert "Traceback" not in cli("doctor", OUTBOX_BROKER_URL="amqp://127.0.0.1:1//").err


def test_an_age_without_end_is_shown() -> None:
    """What is pending since -infinity has one."""
    assert how_long(float("inf")) == "for ever"
