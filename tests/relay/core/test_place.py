"""Where a message is, by what workers and the broker say: what is certain is told apart."""

from collections.abc import Mapping

import pytest

from outbox_relay.core.dead_letter import DEAD
from outbox_relay.core.place import Broker, Lying, Place, Ready, Search, Told, Whereabouts, judge

AWAY = Broker({}, "the broker was not asked: away")


def where(
    told: Told | None = None,
    broker: Broker = AWAY,
    missing: int = 1,
    queues: tuple[str, ...] = ("celery",),
) -> Whereabouts:
    """The place of one message."""
    return judge("id", queues, told, broker, missing, DEAD)


def said(outcome: str, ago: float = 10.0) -> Told:
    """A worker's word."""
    return Told(outcome, "w@host", "WorkerLostError" if outcome == "lost" else None, ago)


def depths(**messages: int) -> dict[str, Ready]:
    """Queues that somebody consumes."""
    return {name.replace("_", "."): Ready(count, 1) for name, count in messages.items()}


def searched(
    found: Mapping[str, Lying] | None = None, *, complete: bool = True, consumers: int | None = 1
) -> Broker:
    """A broker that was searched by id."""
    queues = {"celery": Ready(5, consumers), "celery.dead": Ready(3, 0)}
    return Broker(queues, search=Search(found or {}, complete))


@pytest.mark.parametrize(
    ("broker", "place", "certain"),
    [
        (AWAY, Place.UNKNOWN, False),
        (Broker(depths(celery=1)), Place.QUEUE, False),
        (Broker(depths(celery=0, celery_dead=1)), Place.DEAD_LETTERS, False),
        (Broker(depths(celery=0)), Place.GONE, False),
        (Broker({"celery": Ready(0, 0)}), Place.GONE, True),
        (Broker({}), Place.GONE, False),
        (Broker({}, silent=frozenset({"celery"})), Place.UNKNOWN, False),
        (Broker(depths(celery=0), silent=frozenset({"celery.dead"})), Place.UNKNOWN, False),
        (searched({"id": Lying(Place.QUEUE, "celery")}), Place.QUEUE, True),
        (searched({"id": Lying(Place.UNACKNOWLEDGED)}), Place.UNACKNOWLEDGED, True),
        (searched({"id": Lying(Place.DEAD_LETTERS, "celery.dead")}), Place.DEAD_LETTERS, True),
        (searched({"other": Lying(Place.QUEUE, "celery")}), Place.GONE, False),
        (searched(consumers=0), Place.GONE, True),
        (searched(consumers=None), Place.GONE, False),
        (searched(complete=False), Place.QUEUE, False),
    ],
)
def test_by_what_the_broker_says(broker: Broker, place: Place, certain: bool) -> None:
    """A queue that tells its length alone makes nothing certain; one that was searched does."""
    found = where(broker=broker)

    assert (found.place, found.certain) == (place, certain)


def test_a_queue_with_fewer_messages_than_are_missing() -> None:
    """Which of them are there cannot be known."""
    found = where(broker=Broker(depths(celery=3)), missing=4)

    assert (found.place, found.certain) == (Place.UNKNOWN, False)
    assert "3 of 4" in found.reason


def test_an_exchange_whose_queues_are_not_known() -> None:
    """Neither the length of a queue nor a search says anything then."""
    assert where(broker=Broker({}), queues=()).place is Place.UNKNOWN
    assert where(broker=searched(), queues=()).place is Place.UNKNOWN


@pytest.mark.parametrize("broker", [AWAY, searched(), searched({"id": Lying(Place.QUEUE, "q")})])
def test_who_holds_it_says_so(broker: Broker) -> None:
    """That counts more than anything, while it is not older than two and a half minutes."""
    found = where(said("held"), broker)

    assert (found.place, found.certain, found.is_kept) == (Place.WORKER, True, True)
    assert "w@host said so 10 s ago" in found.reason
    assert where(said("held", ago=151), broker).place is not Place.WORKER


@pytest.mark.parametrize("outcome", ["lost", "unregistered", "undecodable"])
def test_who_threw_it_away_says_so(outcome: str) -> None:
    """Unless it is found: then it was put aside, or somebody has sent it again."""
    gone = where(said(outcome), searched())
    found = where(said(outcome), searched({"id": Lying(Place.DEAD_LETTERS, "celery.dead")}))

    assert (gone.place, gone.certain, gone.is_kept) == (Place.GONE, True, False)
    assert "w@host" in gone.reason
    assert (found.place, found.certain, found.is_kept) == (Place.DEAD_LETTERS, True, True)


def test_dead_letters_that_cannot_be_read() -> None:
    """What a worker did not know may be among them."""
    found = where(said("unregistered"), Broker(depths(celery=0, celery_dead=2)))

    assert (found.place, found.certain, found.is_kept) == (Place.DEAD_LETTERS, False, False)


def test_dead_letters_that_give_no_answer() -> None:
    """What a worker did not know may be among them: that it is gone is not certain."""
    found = where(said("unregistered"), Broker({}, silent=frozenset({"celery.dead"})))

    assert (found.place, found.certain, found.is_kept) == (Place.GONE, False, False)
