"""The pure parts of `doctor`: levels, matching and wording, without waiting for time to pass."""

import pytest

from outbox_relay.broker.amqp.check.bindings import routes
from outbox_relay.broker.amqp.check.queues import Queue, judge
from outbox_relay.core.finding import Level
from outbox_relay.operator.doctor.activity import Transaction, judge_clock, judge_transactions
from outbox_relay.operator.doctor.backlog import judge_progress, judge_relays
from outbox_relay.operator.doctor.causes import BROKER, remedy
from outbox_relay.operator.status import Counts, Flow, RelaySeen, Status
from outbox_relay.settings.durations import how_long


def transaction(age: float, *, holds: bool = True) -> Transaction:
    """A report that somebody forgot."""
    return Transaction(
        "42", "bob", "report", "idle in transaction", age, holds, "pid 42",
        "SELECT pg_terminate_backend(42)",
    )  # fmt: skip


@pytest.mark.parametrize(("age", "level"), [(1, Level.OK), (31, Level.WARN), (301, Level.PROBLEM)])
def test_a_transaction_gets_worse_with_age(age: float, level: Level) -> None:
    """It is named at any age, with the statement that ends it once that is worth while."""
    (found,) = judge_transactions([transaction(age)])

    assert found.level is level
    assert "pid 42, user bob, application report, idle in transaction" in found.text
    assert ("pg_terminate_backend(42)" in found.remedy) == (level is not Level.OK)


def test_a_transaction_that_holds_nothing_is_nobodys_business() -> None:
    """Vacuum need not wait for it."""
    (found,) = judge_transactions([transaction(9999, holds=False)])

    assert found.level is Level.OK


@pytest.mark.parametrize(
    ("skew", "level", "words"),
    [
        (0.2, Level.OK, "agree"),
        (5, Level.WARN, "5.0 s ahead of"),
        (-3600, Level.PROBLEM, "1h 0m behind"),
    ],
)
def test_a_wrong_clock_is_measured(skew: float, level: Level, words: str) -> None:
    """How far, in which direction, and what to run."""
    found = judge_clock(skew, uncertainty=0.01)

    assert found.level is level
    assert words in found.text
    assert ("NTP" in found.remedy) == (level is not Level.OK)


def test_a_slow_network_is_not_a_wrong_clock() -> None:
    """The round trip bounds what can be known."""
    assert judge_clock(2.0, uncertainty=4.0).level is Level.OK


def status(*, age: float = 0, last: float | None = 1, relays: int = 1, pending: int = 5) -> Status:
    """A status with these numbers."""
    seen = [RelaySeen(n, "relay", None, None) for n in range(relays)]
    return Status(Counts(pending, 0, 0, age, 0), Flow(last, 0), seen)


@pytest.mark.parametrize(
    ("seen", "level"),
    [
        (status(age=5), Level.OK),
        (status(age=600, last=1), Level.WARN),
        (status(age=600, last=600), Level.PROBLEM),
        (status(age=600, last=None), Level.PROBLEM),
        (status(pending=0), Level.OK),
    ],
)
def test_progress_is_judged_by_the_last_confirm(seen: Status, level: Level) -> None:
    """Lagging while it flows is a warning; standing still with a relay there is a problem."""
    assert judge_progress(seen).level is level


def test_a_missing_relay_is_a_problem_only_while_messages_wait() -> None:
    """Otherwise a warning."""
    assert judge_relays(status(relays=0, pending=0)).level is Level.WARN
    assert judge_relays(status(relays=0, pending=1)).level is Level.PROBLEM


@pytest.mark.parametrize(
    ("kind", "keys", "routing_key", "reaches"),
    [
        ("direct", ["a"], "a", True),
        ("direct", ["a"], "b", False),
        ("fanout", ["x"], "anything", True),
        ("fanout", [], "anything", False),
        ("topic", ["order.*"], "order.paid", True),
        ("topic", ["order.*"], "order.paid.late", False),
        ("topic", ["order.#"], "order", True),
        ("topic", ["#.late"], "order.paid.late", True),
        ("topic", ["*"], "", True),
        ("headers", [""], "anything", True),
    ],
)
def test_bindings_match_as_the_broker_does(
    kind: str, keys: list[str], routing_key: str, reaches: bool
) -> None:
    """Direct by equality, topic by words, fanout by being there."""
    assert routes(kind, keys, routing_key) is reaches


def test_a_policy_counts_like_an_argument() -> None:
    """And reject-publish anywhere makes a limit harmless."""
    (found,) = judge(Queue("q", policy={"max-length": 5}))
    assert found.level is Level.PROBLEM
    assert "policy max-length" in found.text

    assert not judge(
        Queue("q", arguments={"x-max-length": 5}, policy={"overflow": "reject-publish"})
    )


def test_copies_of_what_is_refused() -> None:
    """reject-publish-dlx with a dead-letter exchange, which may be the default one, is told of."""
    refusing = {"x-max-length": 5, "x-overflow": "reject-publish-dlx"}
    (found,) = judge(Queue("q", arguments={**refusing, "x-dead-letter-exchange": ""}))
    assert found.level is Level.WARN
    assert "calls it dead although it was sent" in found.text

    assert not judge(Queue("q", arguments=refusing))


def test_a_dead_letter_exchange_softens_a_ttl() -> None:
    """What is moved is not lost."""
    moved = Queue("q", arguments={"x-message-ttl": 1000, "x-dead-letter-exchange": "dlx"})

    assert [found.level for found in judge(moved)] == [Level.WARN]


def test_a_queue_that_is_not_durable_is_a_problem() -> None:
    """So is one that goes with its last worker."""
    found = judge(Queue("q", durable=False, auto_delete=True))

    assert [each.level for each in found] == [Level.PROBLEM, Level.PROBLEM]


def test_a_failed_connection_gets_the_advice_its_words_deserve() -> None:
    """And one nobody has foreseen still names the variable."""
    assert "wrong user or password" in remedy(BROKER, "(403) ACCESS_REFUSED", "OUTBOX_BROKER_URL")
    assert "OUTBOX_BROKER_URL" in remedy(BROKER, "the moon is full", "OUTBOX_BROKER_URL")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.6, "60 s"), (61, "1m 1s"), (3600, "1h 0m"), (90061, "1d 1h")],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    """At most two units."""
    assert how_long(seconds) == words
