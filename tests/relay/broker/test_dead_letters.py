"""What every broker's queue of dead letters must do: nothing leaves it that is not home."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection, Queue

from outbox_relay.broker.dead_letters import DeadLetters
from outbox_relay.broker.registry import open_dead_letters
from outbox_relay.configuration import from_environment
from outbox_relay.errors import BrokerLost
from tests.relay.broker.kinds import KINDS, Kind

QUEUE = "celery.dead"
Open = Callable[[], DeadLetters]


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Kind:
    """An empty server of each broker."""
    return KINDS[request.param](request)


@pytest.fixture
def connect(server: Kind) -> Iterator[Open]:
    """Connect as a relay does."""
    opened: list[DeadLetters] = []

    def open_() -> DeadLetters:
        urls = {"OUTBOX_DATABASE_URL": "host=x", "OUTBOX_BROKER_URL": server.url}
        opened.append(open_dead_letters(from_environment(urls)))
        return opened[-1]

    yield open_
    for letters in opened:
        letters.close()


def bury(server: Kind, *ids: str, **headers: Any) -> None:
    """Put messages with these ids into the queue, oldest first."""
    with Connection(server.url) as connection:
        for id in ids:
            connection.Producer().publish(
                "x",
                routing_key=QUEUE,
                headers={"id": id, **headers},
                declare=[Queue(QUEUE)],
            )


def read(letters: DeadLetters, limit: int = 100) -> list[str | None]:
    """The ids of what is read next."""
    return [letter.message_id for letter in letters.read(QUEUE, limit)]


def test_a_queue_that_is_not_there_has_none(connect: Open) -> None:
    """Nothing is waiting, nothing is read, and the connection is as good as before."""
    letters = connect()

    assert letters.waiting(QUEUE) is None
    assert read(letters) == []
    assert letters.waiting(QUEUE) is None


def test_each_is_read_once_and_oldest_first(server: Kind, connect: Open) -> None:
    """In portions, while what was read stays where it is."""
    bury(server, "a", "b", "c")
    letters = connect()

    assert letters.waiting(QUEUE) == 3
    assert read(letters, 2) == ["a", "b"]
    assert read(letters, 2) == ["c"]
    assert read(letters) == []


def test_what_is_not_done_is_still_there(server: Kind, connect: Open) -> None:
    """Whether the connection is closed or lost: only the letter that is home has left."""
    bury(server, "a", "b", "c", "d")
    letters = connect()
    first = list(letters.read(QUEUE, 3))
    letters.done([first[1]])
    bury(server, "e")
    assert read(letters) == ["d", "e"]
    letters.close()

    again = connect()
    assert sorted(filter(None, read(again))) == ["a", "c", "d", "e"]


def test_one_is_taken_out_of_several_alike(server: Kind, connect: Open) -> None:
    """Two deliveries of one message may both have died."""
    bury(server, "a", "a")
    letters = connect()
    [first, _] = letters.read(QUEUE, 10)
    letters.done([first])
    letters.close()

    assert read(connect()) == ["a"]


def test_a_message_of_nobodys_making_has_no_id(server: Kind, connect: Open) -> None:
    """It harms no other."""
    with Connection(server.url) as connection:
        connection.Producer().publish("x", routing_key=QUEUE, declare=[Queue(QUEUE)])
    bury(server, "a")

    assert read(connect()) == [None, "a"]


def test_a_worker_that_put_it_aside_says_why(server: Kind, connect: Open) -> None:
    """The header is read; whatever else it may hold is cut short and made printable."""
    aside = {"reason": "unregistered task", "queue": "celery", "worker": "w\n" * 100}
    bury(server, "a", **{"x-put-aside": aside})

    [letter] = connect().read(QUEUE, 1)
    assert letter.kind == "unregistered task"
    assert letter.reason.startswith("unregistered task: worker w?w?")
    assert "queue 'celery'" in letter.reason
    assert len(letter.reason) < 300


def test_a_server_that_is_away_is_lost(server: Kind, connect: Open) -> None:
    """Whatever is asked next."""
    bury(server, "a")
    letters = connect()
    assert letters.waiting(QUEUE) == 1
    server.disconnect()

    with server.frozen(), pytest.raises(BrokerLost):
        letters.waiting(QUEUE)
