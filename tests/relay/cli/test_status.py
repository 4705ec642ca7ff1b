"""`status`: the counts, the lag and the relays that are alive, once or again and again."""

import json
import signal

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Cli, Outbox


def test_status_counts_every_state(cli: Cli, outbox: Outbox) -> None:
    """As outbox.stats has it, with what was sent lately."""
    outbox.add(), outbox.add_refused(), outbox.add(eta="1 hour"), outbox.add_dead()
    outbox.add_sent(), outbox.add_expired()

    status = cli("status", "--json").json()

    assert status["pending"] == 2
    assert status["scheduled"] == 1
    assert status["dead"] == 1
    assert status["expired"] == 1
    assert status["oldest_pending_age"] > 0
    assert status["sent_last_minute"] == 1
    assert status["last_sent_age"] >= 0
    assert status["relays_alive"] == 0


def test_status_sees_the_relays(
    cli: Cli, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Each running relay is counted, and the one who looks is not."""
    for _ in range(2):
        relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)

    status = cli("status", "--json").json()

    assert status["relays_alive"] == 2
    assert all(seen["pid"] for seen in status["relays"])


def test_status_for_people(cli: Cli, outbox: Outbox) -> None:
    """A line for each number."""
    outbox.add()

    lines = dict(line.split("\t") for line in cli("status").out.splitlines())

    assert lines["pending"] == "1"
    assert lines["relays alive"] == "0"


def test_an_inspector_may_see_the_status(cli: Cli, outbox: Outbox, database: str) -> None:
    """The counts need no right to the messages."""
    outbox.connection.execute("CREATE ROLE watcher LOGIN PASSWORD 'watcher'")
    try:
        outbox.connection.execute("GRANT USAGE ON SCHEMA outbox TO watcher")
        outbox.connection.execute("GRANT SELECT ON outbox.stats TO watcher")
        outbox.connection.execute("GRANT EXECUTE ON FUNCTION outbox.rough_count TO watcher")
        outbox.connection.execute(
            "GRANT SELECT ON outbox.ready, outbox.parked, outbox.lane, outbox.expiry TO watcher"
        )

        status = cli(
            "status", "--json", "--database-url", f"{database}?user=watcher&password=watcher"
        )

        assert status.json()["pending"] == 0
        assert status.json()["last_sent_age"] is None
    finally:
        outbox.connection.execute("DROP OWNED BY watcher")
        outbox.connection.execute("DROP ROLE watcher")


def test_watch_looks_again_until_interrupted(relay: RelayFactory, database: str) -> None:
    """Each look is a line of JSON; SIGINT ends it with 0."""
    watching = relay("status", "--watch", "--json", OUTBOX_DATABASE_URL=database)

    wait_until(lambda: len(watching.output().splitlines()) > 1, 20, "a second look")
    watching.process.send_signal(signal.SIGINT)

    assert watching.wait() == 0
    assert all(json.loads(line)["pending"] == 0 for line in watching.output().splitlines())


def test_what_a_login_may_not_see_is_said(cli: Cli, outbox: Outbox, database: str) -> None:
    """With the role that may: an inspector's sees counts, a relay's what was sent."""
    outbox.connection.execute("CREATE ROLE onlooker LOGIN PASSWORD 'onlooker'")
    url = f"{database}?user=onlooker&password=onlooker"
    try:
        assert "GRANT outbox_inspector to this login" in cli("status", "--database-url", url).err
        outbox.connection.execute("GRANT USAGE ON SCHEMA outbox TO onlooker")
        outbox.connection.execute("GRANT SELECT ON outbox.stats TO onlooker")
        outbox.connection.execute("GRANT EXECUTE ON FUNCTION outbox.rough_count TO onlooker")
        outbox.connection.execute(
            "GRANT SELECT ON outbox.ready, outbox.parked, outbox.lane, outbox.expiry TO onlooker"
        )

        assert "last sent\tnot visible to this login: GRANT outbox_relay" in (
            cli("status", "--database-url", url).out
        )
    finally:
        outbox.connection.execute("DROP OWNED BY onlooker")
        outbox.connection.execute("DROP ROLE onlooker")
