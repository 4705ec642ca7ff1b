"""`doctor` on tables that others have changed: on a real Postgres."""

from tests.relay.conftest import Cli, Outbox, finding

NOBODY = "amqp://127.0.0.1:1//"


def test_a_disabled_trigger(cli: Cli, outbox: Outbox) -> None:
    """Rows would come in and never be published."""
    outbox.connection.execute("ALTER TABLE outbox.message DISABLE TRIGGER USER")

    text = finding(cli("doctor", OUTBOX_BROKER_URL=NOBODY), "problem", "tables")

    assert "of outbox.message is disabled" in text
    assert "ENABLE ALWAYS TRIGGER" in text


def test_a_published_table_without_a_replica_identity(cli: Cli, outbox: Outbox) -> None:
    """Postgres would refuse each DELETE."""
    outbox.connection.execute("ALTER TABLE outbox.receipt REPLICA IDENTITY NOTHING")
    outbox.connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")

    answer = cli("doctor", OUTBOX_BROKER_URL=NOBODY)

    assert "outbox.receipt is in publication everything and has no replica" in answer.out


def test_a_sequence_that_was_set_back(cli: Cli, outbox: Outbox) -> None:
    """It gives ids again; the remedy is a statement, and once it is run nothing is found."""
    outbox.add(), outbox.add()
    outbox.connection.execute("SELECT setval('outbox.message_id_seq', 1)")

    text = finding(cli("doctor", OUTBOX_BROKER_URL=NOBODY), "problem", "tables")

    assert "outbox.message_id_seq stands at 1, and there are messages up to 2" in text
    remedy = text[text.index("SELECT setval(") :].strip()
    outbox.connection.execute(remedy.encode())
    assert "triggers fire" in finding(cli("doctor", OUTBOX_BROKER_URL=NOBODY), "ok", "tables")


def test_retention_that_does_not_keep_up(cli: Cli, outbox: Outbox) -> None:
    """Sent messages that should have been forgotten long ago."""
    assert "retention keeps up" in finding(cli("doctor", OUTBOX_BROKER_URL=NOBODY), "ok", "tables")
    outbox.add_sent(ago="30 days")

    text = finding(cli("doctor", OUTBOX_BROKER_URL=NOBODY), "warn", "tables")

    assert "sent 30d 0h ago" in text
    assert "OUTBOX_RETENTION is 7d 0h" in text
