"""Dead letters come home once, with their reason; what is not ours stays and is not looked at."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from typing import Any
from unittest.mock import MagicMock, create_autospec
from uuid import uuid4

import psycopg
import pytest
from kombu import Connection, Queue
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from outbox_relay.broker.dead_letters import DeadLetters, NoDeadLetters
from outbox_relay.broker.registry import open_dead_letters
from outbox_relay.configuration import from_environment
from outbox_relay.core.dead_letter import DeadLetter
from outbox_relay.errors import StoreLost
from outbox_relay.loop import homecoming as homecoming_module
from outbox_relay.loop.homecoming import Homecoming
from outbox_relay.observe.metrics import Metrics
from outbox_relay.postgres.home import Home
from outbox_relay.settings import Settings
from tests.fixtures.broker import Broker
from tests.fixtures.rows import commit_rows, ids_in, insert_rows, states
from tests.fixtures.waiting import wait_until

QUEUE = "celery.dead"
KILLED = {"x-death": [{"reason": "delivery_limit", "queue": "celery", "count": 1}]}


class Killed(Exception):
    """As if the process had been killed there."""


class Coming:
    """A relay's homecoming, round by round, and the queue it looks at."""

    def __init__(self, database: str, broker: str) -> None:
        self.database, self.broker = database, broker
        self.metrics = Metrics()
        self.looks = 0
        urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker}
        self.settings: Settings = from_environment(urls)
        self.homecoming = Homecoming(lambda: Home.open(self.settings), self._open, self.metrics)
        self.struck: Callable[[], None] = lambda: None

    def _open(self) -> DeadLetters:
        letters = open_dead_letters(self.settings)
        read, done = letters.read, letters.done

        def counted(queue: str, limit: int) -> Iterator[DeadLetter]:
            self.looks += 1
            return read(queue, limit)

        def struck(finished: Any) -> None:
            self.struck()
            done(finished)

        vars(letters).update(read=counted, done=struck)
        return letters

    def round(self) -> None:
        """One round."""
        self.homecoming.round()

    def sent(self, count: int = 1, **columns: Any) -> list[str]:
        """Messages that were confirmed."""
        ids = commit_rows(self.database, count, **columns)
        self.run(
            "WITH gone AS (DELETE FROM outbox.ready RETURNING id, slot) "
            "INSERT INTO outbox.receipt (slot, span, ids) "
            "SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM gone GROUP BY slot"
        )
        return ids

    def bury(self, *ids: str, headers: dict[str, Any] = KILLED) -> None:
        """Have them die."""
        with Connection(self.broker) as connection:
            for id in ids:
                connection.Producer().publish(
                    "x",
                    routing_key=QUEUE,
                    headers={"id": id, **headers},
                    declare=[Queue(QUEUE)],
                )

    def depth(self) -> int:
        """How many lie in the queue."""
        with Connection(self.broker) as connection:
            channel: Any = connection.default_channel
            if connection.transport.driver_type == "redis":
                return int(channel.client.llen(QUEUE))
            return int(channel.queue_declare(QUEUE, passive=True).message_count)

    def run(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """One statement."""
        with psycopg.connect(self.database) as connection:
            cursor = connection.execute(statement.encode(), parameters)
            return cursor.fetchall() if cursor.description else []

    def metric(self, name: str, **labels: str) -> float | None:
        """What is shown."""
        registry: CollectorRegistry = self.metrics.registry
        return registry.get_sample_value(name, labels)


@pytest.fixture(params=["rabbitmq", "valkey"])
def coming(request: pytest.FixtureRequest, database: str) -> Coming:
    """On each broker."""
    name = "broker_url" if request.param == "rabbitmq" else "valkey_url"
    return Coming(database, request.getfixturevalue(name))


def test_a_dead_letter_is_dead_with_its_reason(coming: Coming) -> None:
    """It has left the broker, and retry sends it again under the id it had."""
    [id] = coming.sent()
    coming.bury(id)

    coming.round()

    assert coming.depth() == 0
    assert coming.run("SELECT message_id, last_error FROM outbox.dead") == [
        (id, "delivery limit: dead letter of queue 'celery', 1 time(s)")
    ]
    assert coming.metric("outbox_dead_letters_home_total", reason="delivery limit") == 1
    coming.run("SELECT outbox.retry(%s)", id)
    assert ids_in(coming.database, "pending") == {id}


def test_hundreds_come_home(coming: Coming) -> None:
    """More than are asked about at a time, and nothing of the rest with them."""
    dead, _ = coming.sent(450), coming.sent(50)
    coming.bury(*dead)

    coming.round()

    assert coming.depth() == 0
    assert ids_in(coming.database, "dead") == set(dead)
    assert states(coming.database)["sent"] == 50


def test_each_is_looked_up_by_its_id(database: str) -> None:
    """However many messages are kept: the plan reads none of them but those that are meant."""
    with psycopg.connect(database, autocommit=True) as connection:
        insert_rows(connection, 20_000)
        ids = insert_rows(connection, 50)
        connection.execute("DELETE FROM outbox.ready")
        connection.execute("SELECT pg_stat_force_next_flush()")
        before = _read_of_messages(connection)
        connection.execute(
            "SELECT * FROM outbox.bring_home(%s, %s, %s)", [ids, ["dead"] * 50, ["why"] * 50]
        )
        connection.execute("SELECT pg_stat_force_next_flush()")
        assert _read_of_messages(connection) - before <= 200


def _read_of_messages(connection: psycopg.Connection[Any]) -> int:
    """How many rows of messages were read so far, by any way."""
    row = connection.execute(
        "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))"
        " FROM pg_stat_user_tables WHERE schemaname = 'outbox' AND relname LIKE 'message%'"
    ).fetchone()
    return int(row[0]) if row else 0


def test_what_is_not_ours_stays_and_is_looked_at_once(coming: Coming) -> None:
    """Also between others of ours. It is counted, and another look is taken when more arrive."""
    mine = coming.sent(3)
    coming.bury(mine[0], str(uuid4()), mine[1], str(uuid4()))

    for _ in range(5):
        coming.round()
    assert coming.looks == 2  # the second found the end
    assert coming.depth() == 2
    assert coming.metric("outbox_dead_letters_left", queue=QUEUE) == 2

    coming.bury(mine[2])
    coming.round()
    assert coming.depth() == 2
    assert ids_in(coming.database, "dead") == set(mine)


def test_one_that_takes_the_place_of_anothers_comes_home(
    coming: Coming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many lie there as before: another outbox with that queue has taken its own away."""
    [mine], theirs = coming.sent(), str(uuid4())
    coming.bury(theirs)
    now = 1000.0
    monkeypatch.setattr(homecoming_module, "monotonic", lambda: now)
    coming.round()
    assert coming.metric("outbox_dead_letters_left", queue=QUEUE) == 1

    wait_until(lambda: coming.depth() == 1, 20, "the letter back in its place")
    with closing(open_dead_letters(coming.settings)) as others:
        others.done(list(others.read(QUEUE, 1)))
    coming.bury(mine)
    now += homecoming_module.LEFT_AGAIN
    coming.round()

    assert coming.depth() == 0
    assert ids_in(coming.database, "dead") == {mine}


def test_killed_between_commit_and_acknowledgement(coming: Coming) -> None:
    """It is dead and still in the queue; the next round takes it out, and it died once."""
    [id] = coming.sent()
    coming.bury(id)

    def kill() -> None:
        raise Killed

    coming.struck = kill
    with pytest.raises(Killed):
        coming.round()
    assert (coming.depth(), ids_in(coming.database, "dead")) == (1, {id})

    coming.struck = lambda: None
    coming.round()
    assert (coming.depth(), ids_in(coming.database, "dead")) == (0, {id})
    assert coming.metric("outbox_dead_letters_home_total", reason="delivery limit") == 0


def test_what_is_still_work_is_left_for_now(coming: Coming) -> None:
    """A late confirm would make it sent, and nobody would know that it had died."""
    [id] = commit_rows(coming.database)
    coming.bury(id)
    coming.round()
    assert coming.depth() == 1
    assert states(coming.database)["dead"] == 0

    coming.sent(0)
    coming.homecoming._queues[QUEUE].again = 0.0
    coming.round()
    assert coming.depth() == 0
    assert ids_in(coming.database, "dead") == {id}


def test_one_that_was_dead_or_has_expired_is_known(coming: Coming) -> None:
    """Its copy leaves the broker, and what is known of it stays as it was."""
    dead, expired = coming.sent(2)
    coming.bury(dead)
    coming.round()
    coming.run(
        "INSERT INTO outbox.expiry (id, slot) SELECT id, slot FROM outbox.message "
        "WHERE message_id = %s",
        expired,
    )
    coming.bury(dead, expired, headers={})

    coming.round()

    assert coming.depth() == 0
    assert coming.run("SELECT last_error FROM outbox.dead")[0][0].startswith("delivery limit")
    assert ids_in(coming.database, "expired") == {expired}


def test_one_of_a_lane_goes_back_to_its_lane(coming: Coming) -> None:
    """Retried, it is published in its turn."""
    [id] = coming.sent(ordering_key="order-1")
    coming.run(
        "WITH gone AS (DELETE FROM outbox.lane RETURNING id, slot) "
        "INSERT INTO outbox.receipt (slot, span, ids) "
        "SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM gone GROUP BY slot"
    )
    coming.bury(id)
    coming.round()

    coming.run("SELECT outbox.retry(%s)", id)
    assert coming.run("SELECT key FROM outbox.lane") == [("order-1",)]


def test_one_relay_at_a_time(coming: Coming) -> None:
    """Two that took turns would show each other's messages as new without end."""
    coming.bury(*coming.sent())
    with Home.open(coming.settings) as other:
        assert other.is_mine()
        coming.round()
        assert coming.depth() == 1

    coming.round()
    assert coming.depth() == 0


def test_retention_passes_by_meanwhile(database: str, valkey_url: str) -> None:
    """A message that it sees as sent may be dead by now: its next run sees that."""
    coming = Coming(database, valkey_url)
    coming.sent(3)
    purge = "SELECT outbox.purge('0', exact => true)"
    with Home.open(coming.settings) as home:
        assert home.is_mine()
        assert coming.run(purge) == [(0,)]

    assert coming.run(purge) == [(3,)]


def test_a_database_that_is_away_costs_nothing(coming: Coming) -> None:
    """Nothing is taken; the thread waits and tries again."""
    coming.bury(*coming.sent())
    settings = from_environment(
        {"OUTBOX_DATABASE_URL": "host=127.0.0.1 port=1", "OUTBOX_BROKER_URL": coming.broker}
    )
    away = Homecoming(lambda: Home.open(settings), coming._open, coming.metrics)

    with pytest.raises(StoreLost):
        away.round()
    assert coming.depth() == 1


def test_a_queue_that_only_a_worker_or_a_setting_names(database: str, valkey_url: str) -> None:
    """Queues of workers are known, and others are as soon as they are set."""
    coming = Coming(database, valkey_url)
    coming.run(
        "INSERT INTO inbox.worker (node, queues, tasks, alive_until)"
        " VALUES ('w', '{letters}', '{}', now())"
    )
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": valkey_url}
    settings = from_environment({**urls, "OUTBOX_DEAD_LETTER_QUEUES": "graveyard, old"})

    with Home.open(settings) as home:
        assert home.queues() == ["letters.dead", "graveyard", "old"]


def test_a_queue_that_would_drop_what_is_looked_at_is_closed(database: str, broker: Broker) -> None:
    """Somebody else's letter outlives any number of rounds; the log says that it is closed."""
    broker.declare(QUEUE, **{"x-queue-type": "quorum", "x-delivery-limit": 20})
    coming = Coming(database, broker.url)
    coming.sent()  # else the queue is not known
    publish = {"confirm_publish": True}

    with capture_logs() as logs:
        for number in range(25):
            with Connection(broker.url, transport_options=publish) as connection:
                connection.Producer().publish(
                    "x", QUEUE, headers={"id": f"theirs {number}"}, confirm_timeout=10
                )
            coming.round()
            wait_until(lambda: coming.depth() == number + 1, 20, "all of them back")  # noqa: B023  # called at once

    assert coming.depth() == 25
    assert [each["closed"] for each in logs if each["event"] == "dead_letters_left"][-1] is True


def test_a_queue_that_is_not_there_is_looked_for_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each such look costs the broker a channel and a line of its log."""
    now = 1000.0
    monkeypatch.setattr(homecoming_module, "monotonic", lambda: now)
    asked: list[float] = []
    letters = create_autospec(NoDeadLetters, instance=True)
    letters.waiting.side_effect = lambda _: asked.append(now)
    home = MagicMock()
    home.__enter__().queues.return_value = [QUEUE]
    homecoming = Homecoming(lambda: home, lambda: letters, Metrics())

    for _ in range(360):
        homecoming.round()
        now += 10

    pauses = [later - sooner for sooner, later in pairwise(asked)]
    assert pauses[:5] == [10, 20, 40, 80, 160]
    assert set(pauses[5:]) == {300}
