"""A pooler between doctor and database is seen, and told by its mode."""

from tests.fixtures.pgbouncer import Pooler
from tests.relay.conftest import Cli, finding


def test_transaction_mode_is_a_problem(command: Cli, pooler: Pooler) -> None:
    """Told apart without asking the pooler, and with the setting that fixes it."""
    answer = command("doctor", "--database-url", pooler("transaction"))

    assert answer.code == 1
    text = finding(answer, "problem", "connection pooling")
    assert "transaction mode" in text
    assert "pool_mode = session" in text


def test_session_mode_is_a_warning(command: Cli, pooler: Pooler) -> None:
    """It works, with a hop more."""
    answer = command("doctor", "--database-url", pooler("session"))

    assert "session mode" in finding(answer, "warn", "connection pooling")


def test_operators_may_look_through_a_pooler(command: Cli, pooler: Pooler) -> None:
    """Looking needs no session state."""
    answer = command("status", "--json", "--database-url", pooler("transaction"))

    assert answer.json()["pending"] == 0


def test_a_direct_connection_is_seen_as_one(command: Cli, database: str) -> None:
    """No false alarm."""
    answer = command("doctor", "--database-url", database)

    assert "direct" in finding(answer, "ok", "connection pooling")
