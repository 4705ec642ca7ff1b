"""The whole relay between a real Postgres and a real RabbitMQ, through everything that can happen.

Whatever is done to it, what was committed arrives, at most a window of it twice, and no healthy
message pays for a fault with an attempt.
"""

import json
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from kombu import Connection

from outbox_migrations import grant
from outbox_relay.broker.registry import publisher_factory
from outbox_relay.configuration import from_environment
from outbox_relay.loop import pace, retention
from outbox_relay.loop import relay as relay_module
from outbox_relay.loop.relay import Relay as InProcessRelay
from outbox_relay.observe.health import Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.purge import tidy
from outbox_relay.postgres.store import Store
from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.postgres import OwnPostgres, migrated_database
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import commit_rows, ids_in, insert_rows, states
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0
WINDOW = 200
#: Small claims and short terms, so that faults hit in the middle of things.
HASTE = {
    "OUTBOX_WINDOW": str(WINDOW),
    "OUTBOX_BATCH_SIZE": "50",
    "OUTBOX_LEASE": "1s",
    "OUTBOX_RETRY_DELAY": "50ms",
}
#: Each message names itself, as Celery's do.
QUEUE = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'

#: Attempts in vain after which a back-off has reached its ceiling.
LONG_AWAY = 20

StartRelay = Callable[..., Relay]


def commit(url: str, count: int = 1, **columns: Any) -> list[str]:
    """Commit messages whose body is their id, so that the queue can be compared with the table."""
    with psycopg.connect(url) as connection:
        ids = insert_rows(connection, count, **{"declare": QUEUE, **columns})
        connection.execute(
            "UPDATE outbox.message SET body = convert_to(message_id, 'UTF8')"
            " WHERE message_id = ANY (%s)",
            [ids],
        )
    return ids


def arrived(broker: Broker, queue: str = "celery") -> Counter[str]:
    """Take everything out of a queue: message ids, and how often each was there."""
    return Counter(message.body.decode() for message in broker.take_all(queue))


def settings(database: str, broker: str, **changes: str) -> dict[str, str]:
    """The environment of a relay."""
    return {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker, **HASTE, **changes}


@pytest.fixture
def start(relay: RelayFactory, database: str, broker: Broker) -> StartRelay:
    """Start a relay between the test's database and virtual host."""

    def start(*arguments: str, wait: bool = True, **changes: str) -> Relay:
        environment = settings(database, broker.url, **changes)
        return relay(*arguments, wait=wait, **environment)

    return start


def wait_for(database: str, **counts: int) -> None:
    """Wait until the views show these numbers."""
    wait_until(
        lambda: states(database).items() >= counts.items(),
        DEADLINE,
        f"{counts}, at the end {states(database)}",
    )


def wait_for_some(database: str, sent: int) -> None:
    """Wait until a beginning has been made."""
    wait_until(lambda: states(database)["sent"] >= sent, DEADLINE, f"{sent} sent")


def attempts(database: str) -> int:
    """All the attempts that unsent messages have been charged with."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT (SELECT coalesce(sum(attempts), 0) FROM outbox.ready)"
            " + (SELECT coalesce(sum(attempts), 0) FROM outbox.parked)"
        ).fetchone()
    assert row is not None
    return int(row[0])


def claimed(database: str) -> int:
    """How many rows are claimed and not settled."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM outbox.ready WHERE claim_id IS NOT NULL"
        ).fetchone()
    assert row is not None
    return int(row[0])


def run_out(database: str) -> bool:
    """Whether what is claimed may be claimed by others."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT bool_and(lease_until < now()) FROM outbox.ready WHERE claim_id IS NOT NULL"
        ).fetchone()
    assert row is not None
    return row[0] is True


def assert_complete(got: Counter[str], ids: list[str], duplicates: int) -> None:
    """Nothing lost, nothing from nowhere, and not more twice than is permitted."""
    assert set(ids) - set(got) == set(), "lost"
    assert set(got) - set(ids) == set(), "never committed"
    assert sum(got.values()) - len(got) <= duplicates, "duplicated"


class TestHealthy:
    """Without faults there are no duplicates at all."""

    def test_what_was_committed_is_published_and_nothing_else(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Rolled back rows never were; committed ones become sent."""
        start()
        with psycopg.connect(database) as connection:
            insert_rows(connection, 5)
            connection.rollback()
        ids = commit(database, 20)
        wait_for(database, pending=0, sent=20)

        assert_complete(arrived(broker), ids, duplicates=0)

    def test_two_relays_share_without_duplicates(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Both work, each row goes out once."""
        ids = commit(database, 1500)
        start()
        start()
        wait_for(database, pending=0, sent=1500)

        assert_complete(arrived(broker), ids, duplicates=0)

    def test_an_eta_is_kept(self, start: StartRelay, database: str, broker: Broker) -> None:
        """Sent when it is due and not before, by the database's clock."""
        (soon,) = commit(database, available_in=1.5)
        commit(database, available_in=3600)
        start()
        wait_for(database, sent=1)

        assert states(database)["scheduled"] == 1
        assert set(arrived(broker)) == {soon}
        with psycopg.connect(database) as connection:
            early = connection.execute(
                "SELECT count(*) FROM outbox.sent JOIN outbox.message USING (id)"
                " WHERE sent_at < message.available_at"
            ).fetchone()
        assert early == (0,)

    def test_an_early_id_that_commits_late_is_not_skipped(
        self, start: StartRelay, database: str
    ) -> None:
        """The relay has long published higher ids when the slow transaction ends."""
        start()
        with psycopg.connect(database) as slow:
            insert_rows(slow)
            commit(database, 200)
            wait_for(database, sent=200)
            slow.commit()
        wait_for(database, sent=201)

    def test_a_relay_with_the_relays_role_is_enough(
        self, relay: RelayFactory, database: str, broker: Broker
    ) -> None:
        """What `outbox-migrate grant` gives serves for everything, retention included."""
        grant(database)
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("CREATE ROLE some_relay LOGIN PASSWORD 'p' IN ROLE outbox_relay")
        parts = urlsplit(database)
        url = urlunsplit(parts._replace(netloc=f"some_relay:p@{parts.hostname}:{parts.port}"))
        commit(database, 5)
        commit(database, 5, available_in=0.5)
        commit(database, routing_key="nowhere", declare="[]")
        running = relay(**settings(url, broker.url, OUTBOX_MAX_ATTEMPTS="2", OUTBOX_RETENTION="0"))
        wait_for(database, pending=0, scheduled=0, dead=1)

        assert running.stop() == 0
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("DROP ROLE some_relay")
        assert states(database)["sent"] == 0
        assert "messages_refused" in running.output()
        assert "database_lost" not in running.output()

    def test_metrics_tell_what_happened(self, start: StartRelay, database: str) -> None:
        """Counters of a relay agree with the table."""
        commit(database, 30)
        running = start()
        wait_for(database, sent=30)

        wait_until(lambda: "_confirm_seconds_count 30.0" in running.metrics(), DEADLINE, "metrics")
        shown = running.metrics()

        assert 'outbox_published_total{exchange="",routing_key="celery"} 30.0' in shown
        assert "outbox_broker_up 1.0" in shown
        assert "outbox_database_up 1.0" in shown

    def test_nothing_secret_is_logged(self, start: StartRelay, database: str) -> None:
        """Neither bodies nor headers nor passwords, at any level, also of refused messages."""
        canary = "canary-3c1f"
        commit_rows(
            database, 2, body=canary.encode(), headers=json.dumps({"secret": canary}), declare=QUEUE
        )
        commit_rows(database, body=canary.encode(), routing_key="nowhere")
        running = start(OUTBOX_LOG_LEVEL="debug", OUTBOX_MAX_ATTEMPTS="1")
        wait_for(database, sent=2, dead=1)
        running.stop()

        assert canary not in running.output()
        assert str(urlsplit(database).password) not in running.output()


class TestRefusals:
    """A bad row never holds up a good one, and says what is wrong with it."""

    def reason(self, database: str, message_id: str) -> str:
        """Why a message is dead."""
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "SELECT last_error FROM outbox.dead WHERE message_id = %s", [message_id]
            ).fetchone()
        assert row is not None
        return str(row[0])

    def test_the_expired_end_quietly(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """A task somebody waits for goes to a worker, which ends it; all others go nowhere."""
        (late,) = commit(database, expires_in=-1, headers='{"ignore_result": true, "task": "t"}')
        (told,) = commit(database, expires_in=-1, headers='{"ignore_result": false, "task": "t"}')
        (timely,) = commit(database, expires_in=3600)
        running = start()
        wait_for(database, sent=1)
        wait_until(lambda: ids_in(database, "expired") == {late, told}, DEADLINE, "both expired")

        assert set(arrived(broker)) == {told, timely}
        assert ids_in(database, "dead") == set()
        assert "outbox_expired_total 2.0" in running.metrics()
        assert "messages_dead" not in running.output()

    def test_the_unroutable_are_tried_again_and_then_dead(
        self, start: StartRelay, database: str
    ) -> None:
        """As often as is permitted, with the broker's own words."""
        (lost,) = commit(database, routing_key="nowhere", declare="[]")
        start(OUTBOX_MAX_ATTEMPTS="3")
        wait_for(database, dead=1)

        assert "312 NO_ROUTE" in self.reason(database, lost)
        with psycopg.connect(database) as connection:
            tried = connection.execute("SELECT attempts FROM outbox.dead").fetchone()
        assert tried == (3,)

    def test_nonsense_written_by_hand_harms_only_itself(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Whatever the table lets in and AMQP does not: dead with a reason, the others sent."""
        nonsense: list[dict[str, Any]] = [
            {"headers": '{"x": "\\ud800"}'},
            {"headers": '{"x": 1e400}'},
            {"headers": json.dumps({"x": 2**63})},
            {"headers": json.dumps({"k" * 300: 1})},
            {"headers": '{"x": {"__type__": "decimal", "__value__": "ten"}}'},
            {"headers": json.dumps({"x": "y" * 131_060})},
            {"properties": '{"priority": "high"}'},
            {"properties": '{"expiration": "-5"}'},
            {"properties": '{"delivery_mode": 7}'},
            {"properties": '{"unheard_of": 1}'},
            {"declare": "[null]"},
            {"declare": '[{"kind": "queue", "name": 5}]'},
        ]
        good: list[str] = []
        for columns in nonsense:
            good += commit(database, 5)
            commit(database, **columns)
        start()
        wait_for(database, pending=0)

        assert states(database) == {
            "pending": 0,
            "scheduled": 0,
            "sent": len(good),
            "dead": len(nonsense),
        }
        assert_complete(arrived(broker), good, duplicates=0)
        with psycopg.connect(database) as connection:
            reasons = connection.execute("SELECT last_error FROM outbox.dead").fetchall()
        assert all(reason.startswith("invalid: ") for (reason,) in reasons), reasons

    def test_poison_is_isolated(self, start: StartRelay, database: str, broker: Broker) -> None:
        """A hundred messages that kill the channel, before and among a hundred that do not."""
        poison = {"properties": '{"user_id": "somebody-else"}'}
        commit(database, 50, **poison)
        good = commit(database, 50)
        commit(database, 50, **poison)
        good += commit(database, 50)
        running = start(OUTBOX_MAX_ATTEMPTS="2", OUTBOX_ALLOW_RESERVED="user_id")
        wait_for(database, sent=100)
        more = commit(database, 100)
        wait_for(database, sent=200, dead=100, pending=0)

        isolations = len(running.events("suspects_isolated"))
        assert_complete(arrived(broker), good + more, duplicates=isolations * WINDOW)
        with psycopg.connect(database) as connection:
            reasons = connection.execute("SELECT attempts, last_error FROM outbox.dead").fetchall()
        assert {tried for tried, _ in reasons} == {2}
        assert all("406" in reason for _, reason in reasons)

    def test_a_missing_right_is_waited_out(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """403: nobody is charged with it; others flow; once it is granted, all is sent."""
        exchange = {"kind": "exchange", "name": "secret", "type": "fanout"}
        with Connection(broker.url) as connection:
            channel: Any = connection.default_channel
            channel.exchange_declare("secret", "fanout", durable=True, auto_delete=False)
        broker.ctl("set_permissions", "outbox", ".*", r"^(celery|amq\.default)$", ".*")
        commit(database, 3, exchange="secret", mandatory=False, declare=json.dumps([exchange]))
        running = start(OUTBOX_MAX_ATTEMPTS="1")
        running.wait_for_event("messages_refused")
        commit(database, 50)
        wait_for(database, sent=50, pending=3, dead=0)
        assert attempts(database) == 0

        broker.ctl("set_permissions", "outbox", ".*", ".*", ".*")

        wait_for(database, sent=53, pending=0)

    def test_messages_deleted_by_hand_are_forgotten(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Somebody empties the table the blunt way: the relay lives, and takes what comes next."""
        commit(database, 3 * WINDOW)
        with psycopg.connect(database) as connection:
            connection.execute("DELETE FROM outbox.message")
        running = start()
        ids = commit(database, 10)
        wait_for(database, sent=10)

        assert_complete(arrived(broker), ids, duplicates=0)
        assert running.stop() == 0
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM outbox.ready").fetchone() == (0,)


class TestFaults:
    """Killed, frozen, cut off: nothing is lost, little is sent twice, nobody is charged."""

    def test_a_relay_that_was_away_disturbs_nobody(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Stopped beyond its claims, it comes back to find its rows sent by another."""
        ids = commit(database, 1500)
        paused = start()
        wait_for_some(database, 1)
        resume = paused.freeze()
        start()
        wait_for(database, sent=1500, pending=0)
        resume()
        ids += commit(database, 100)
        wait_for(database, sent=1600, pending=0, dead=0)

        assert paused.stop() == 0
        assert_complete(arrived(broker), ids, duplicates=WINDOW)

    def test_a_lone_relay_that_was_away_sends_nothing_twice(
        self, start: StartRelay, database: str, broker: Broker
    ) -> None:
        """Its claims have run out, but nobody has taken them: it renews them, hears confirms."""
        ids = commit(database, 1)
        relay = start()
        wait_for(database, sent=1)
        with frozen_queue(broker, "celery"):
            ids += commit(database, 1500)
            wait_until(lambda: claimed(database) >= 50, DEADLINE, "a batch to be claimed")
            resume = relay.freeze()
        wait_until(lambda: run_out(database), DEADLINE, "claims to run out")
        resume()
        wait_for(database, sent=1501, pending=0, dead=0)

        assert_complete(arrived(broker), ids, duplicates=0)

    def test_a_database_restarted_in_the_middle_loses_nothing(
        self, relay: RelayFactory, broker: Broker, own_postgres: OwnPostgres
    ) -> None:
        """Crashed and started again, under the relay's feet."""
        server = own_postgres()
        database = migrated_database(server)
        ids = commit(database, 1500)
        running = relay(**settings(database, broker.url))
        wait_for_some(database, 1)
        server.kill()
        running.wait_for_event("database_lost")
        assert not running.ready()
        server.start()
        wait_for(database, sent=1500, pending=0)

        assert attempts(database) == 0
        assert_complete(arrived(broker), ids, duplicates=WINDOW)

    def test_servers_that_are_away_at_the_start_are_waited_for(
        self, relay: RelayFactory, broker: Broker, own_postgres: OwnPostgres
    ) -> None:
        """Deployments start in any order."""
        server = own_postgres()
        database = migrated_database(server)
        commit(database, 5)
        server.stop()
        running = relay(wait=False, **settings(database, broker.url))
        running.wait_for_event("database_lost")

        server.start()

        wait_for(database, sent=5)

    def test_a_database_that_was_long_away_is_asked_every_second(
        self, own_postgres: OwnPostgres, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relay is back within two seconds of its server: no pause before is longer than one."""
        server = own_postgres()
        database = migrated_database(server)
        commit(database, 5)
        relay, pauses = in_process(database, broker.url), list[float]()

        def rest(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == LONG_AWAY:
                server.start()

        monkeypatch.setattr(relay, "_rest", rest)
        server.stop()

        assert relay.drain()
        assert len(pauses) >= LONG_AWAY
        assert max(pauses) <= 1.0
        assert states(database)["sent"] == 5

    def test_sigterm_ends_a_relay_that_reaches_nothing(self, relay: RelayFactory) -> None:
        """Also while it waits to connect."""
        nowhere = settings("postgresql://x@127.0.0.1:1/x", "amqp://127.0.0.1:1//")
        running = relay(wait=False, **nowhere, OUTBOX_GRACE_PERIOD="1s")
        running.wait_for_event("database_lost")

        assert running.stop() == 0


class TestDrain:
    """`run --drain`: 0 when nothing due is left, 1 otherwise, 2 for what was asked wrongly."""

    def test_drained_is_nought(self, start: StartRelay, database: str, broker: Broker) -> None:
        """What is not due, or has expired, does not count."""
        ids = commit(database, 500)
        commit(database, available_in=3600)
        commit(database, expires_in=-1, headers='{"ignore_result": true, "task": "t"}')

        assert start("run", "--drain").wait(DEADLINE) == 0

        assert states(database) == {"pending": 0, "scheduled": 1, "sent": 500, "dead": 0}
        assert len(ids_in(database, "expired")) == 1
        assert_complete(arrived(broker), ids, duplicates=0)

    def test_an_empty_outbox_is_drained(self, start: StartRelay) -> None:
        """At once."""
        assert start("run", "--drain").wait(DEADLINE) == 0

    def test_another_relays_claims_are_waited_for(self, start: StartRelay, database: str) -> None:
        """A relay that died holds rows for a while; they are due all the same."""
        commit(database, 5)
        with psycopg.connect(database) as connection:
            connection.execute(
                "UPDATE outbox.ready SET claim_id = 1, lease_until = now() + interval '2 s'"
            )

        assert start("run", "--drain").wait(DEADLINE) == 0
        assert states(database)["sent"] == 5

    def test_something_left_is_one(self, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A broker that does not come back within the drain's patience."""
        monkeypatch.setattr(relay_module, "DRAIN_PATIENCE", 0.5)
        commit(database)

        assert in_process(database, "amqp://127.0.0.1:1//").drain() is False
        assert states(database)["pending"] == 1
        assert attempts(database) == 0

    def test_a_queue_that_stays_full_does_not_hold_a_drain_for_ever(
        self, database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is tried again and again, at no cost in attempts, is no progress."""
        monkeypatch.setattr(relay_module, "DRAIN_PATIENCE", 0.5)
        broker.declare("celery", **{"x-max-length": 0, "x-overflow": "reject-publish"})
        commit(database, declare="[]")

        assert in_process(database, broker.url).drain() is False
        assert attempts(database) == 0

    def test_a_drain_can_be_interrupted(self, relay: RelayFactory, database: str) -> None:
        """SIGTERM before all was sent: exit 1."""
        commit(database)
        draining = relay("run", "--drain", **settings(database, "amqp://127.0.0.1:1//"))
        draining.wait_for_event("broker_lost")
        draining.process.send_signal(signal.SIGINT)

        assert draining.wait(DEADLINE) == 1

    def test_a_missing_schema_is_one_and_said(
        self, relay: RelayFactory, empty_database: str, broker: Broker
    ) -> None:
        """Not waited out: the message says how to make it."""
        running = relay(wait=False, **settings(empty_database, broker.url))

        assert running.wait(DEADLINE) == 1
        assert "outbox-migrate up" in running.output()
        assert "Traceback" not in running.output()

    def test_a_wrong_setting_is_two_and_named(self, relay: RelayFactory, database: str) -> None:
        """One sentence."""
        running = relay(wait=False, **settings(database, "kafka://x"))

        assert running.wait(DEADLINE) == 2
        assert "OUTBOX_BROKER_URL" in running.output()
        assert "Traceback" not in running.output()


class TestRetention:
    """What was sent is forgotten as configured."""

    def test_retention_nought_leaves_nothing_behind(
        self, database: str, broker: Broker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither messages nor receipts, also of a relay that died between confirm and delete."""
        monkeypatch.setattr(retention, "PURGE_EVERY", 0.0)
        monkeypatch.setattr(pace, "CHORES_EVERY", 0.0)
        commit(database, 20)
        with psycopg.connect(database) as connection:
            insert_rows(connection)
            connection.execute(
                "DELETE FROM outbox.ready WHERE id = (SELECT max(id) FROM outbox.ready)"
            )
            connection.execute(
                "INSERT INTO outbox.receipt"
                " SELECT now() - interval '2 days', min(slot), '[1,1]', '{1}' FROM outbox.message"
            )
            connection.execute(
                "UPDATE outbox.message SET created_at = created_at - interval '2 days'"
                " WHERE id = (SELECT max(id) FROM outbox.message)"
            )

        assert in_process(database, broker.url, OUTBOX_RETENTION="0").drain()

        def everything_gone() -> bool:
            with psycopg.connect(database) as connection:
                old = connection.execute(
                    "SELECT count(*) FROM outbox.receipt WHERE sent_at < now() - interval '1 day'"
                ).fetchone()
            return old == (0,) and not any(states(database).values())

        wait_until(everything_gone, DEADLINE, "an empty outbox")


def in_process(database: str, broker: str, **changes: str) -> InProcessRelay:
    """A relay in this process, for tests that shorten its patience."""
    read = from_environment(settings(database, broker, **changes))
    return InProcessRelay(
        read,
        open_store=lambda: Store.connect(database, read.schema, read.statement_timeout),
        open_publisher=publisher_factory(read),
        first_claim_id=1 << 32,
        metrics=Metrics(),
        health=Health(),
        tidy=partial(tidy, read),
    )
