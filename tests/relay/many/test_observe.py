"""What is shown of many outboxes: each by its name, a bounded number of names, and nothing lost."""

from math import isnan, nan
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from outbox_relay.core.backlog import Stats
from outbox_relay.core.depth import Depth
from outbox_relay.many.observe import MAX_ROUTES, Boards
from outbox_relay.many.together import COUNTING, HIGHEST, LOWEST
from outbox_relay.observe.health import Endpoint
from outbox_relay.observe.metrics import Metrics
from servers.ports import free_port
from tests.relay.observe.test_metrics import confirmed


def samples(boards: Boards) -> dict[str, float]:
    """Every sample as Prometheus reads it, by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items()) or ''}": sample.value
        for family in text_string_to_metric_families(generate_latest(boards.registry).decode())
        for sample in family.samples
    }


def of(outbox: str, name: str) -> str:
    """How a sample without labels of its own is called there."""
    return f"{name}[('outbox', '{outbox}')]"


def ready(boards: Boards, query: str = "") -> tuple[int, str]:
    """What /readyz answers."""
    port = free_port()
    with Endpoint(("127.0.0.1", port), boards.health, boards.registry):
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz{query}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except HTTPError as error:
            return error.code, error.read().decode().strip()


def test_each_is_shown_by_its_name() -> None:
    """With all the labels it has alone."""
    boards = Boards()
    shop, mail = boards.board("shop")[0], boards.board("app/tenant_7")[0]
    shop.stats(Stats(3, 1, 0, 9.5))
    mail.count_outcomes(confirmed(2, "events", "mail.sent"))

    shown = samples(boards)

    assert shown[of("shop", "outbox_pending_messages")] == 3
    assert isnan(shown[of("app/tenant_7", "outbox_pending_messages")])
    route = "[('exchange', 'events'), ('outbox', 'app/tenant_7'), ('routing_key', 'mail.sent')]"
    assert shown[f"outbox_published_total{route}"] == 2
    assert shown[of("app/tenant_7", "outbox_confirm_seconds_count")] == 2
    assert shown[of("shop", "outbox_confirm_seconds_count")] == 0


def test_every_metric_of_one_is_there_of_many() -> None:
    """Each once in the text, with one help; what is of the process has no outbox."""
    boards = Boards()
    boards.board("shop")
    boards.board("mail")

    text = generate_latest(boards.registry).decode()
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]

    alone = generate_latest(Metrics().registry).decode()
    expected = {line.split()[2] for line in alone.splitlines() if line.startswith("# TYPE")}
    assert {*families} == {name for name in expected if not name.endswith("_created")}
    assert len(families) == len({*families})
    unlabelled = {
        line.partition("{")[0].partition(" ")[0]
        for line in text.splitlines()
        if not line.startswith("#") and "outbox=" not in line
    }
    assert "process_resident_memory_bytes" in unlabelled
    assert {name for name in unlabelled if not name.startswith("process_")} == {"outbox_build_info"}


def test_it_is_the_same_board_each_time() -> None:
    """An outbox that rests and works again goes on counting."""
    boards = Boards()

    assert boards.board("shop") is boards.board("shop")


def test_one_that_is_gone_is_shown_no_longer() -> None:
    """And one of its name begins anew."""
    boards = Boards()
    boards.board("shop")[0].stats(Stats(3, 0, 0, 1.0))
    boards.forget("shop")
    boards.forget("shop")

    assert not [name for name in samples(boards) if "shop" in name]
    assert isnan(samples_of_new(boards, "shop")["outbox_pending_messages"])


def samples_of_new(boards: Boards, name: str) -> dict[str, float]:
    """The samples without labels of an outbox that comes now."""
    boards.board(name)
    end = f"[('outbox', '{name}')]"
    return {k.removesuffix(end): v for k, v in samples(boards).items() if k.endswith(end)}


def test_names_are_labels_only_up_to_a_bound() -> None:
    """The others are one: what there is added up, an age the highest, and up if all are."""
    boards = Boards(max_named=1)
    boards.board("first")[0].stats(Stats(100, 0, 0, 100.0))
    second, third = boards.board("second")[0], boards.board("third")[0]
    second.stats(Stats(2, 0, 1, 5.0))
    third.stats(Stats(3, 0, 0, 7.0))
    second.database_up.set(1)
    third.database_up.set(0)
    third.broker_blocked.set(1)
    for each in (second, third):
        each.count_outcomes(confirmed(2))
        each.queues([Depth("celery", 40, 1)])

    shown = samples(boards)

    assert shown[of("first", "outbox_pending_messages")] == 100
    assert shown[of("other", "outbox_pending_messages")] == 5
    assert shown[of("other", "outbox_dead_messages")] == 1
    assert shown[of("other", "outbox_oldest_pending_age_seconds")] == 7
    assert shown[of("other", "outbox_database_up")] == 0
    assert shown[of("other", "outbox_broker_blocked")] == 1
    assert shown[of("other", "outbox_confirm_seconds_count")] == 4
    assert shown["outbox_queue_depth[('outbox', 'other'), ('queue', 'celery')]"] == 40
    assert not [name for name in shown if "'second'" in name or "'third'" in name]


def test_what_is_unknown_of_one_hides_nothing_of_others() -> None:
    """Only what is known of none is unknown."""
    boards = Boards(max_named=0)
    boards.board("second")[0].stats(Stats(2, 0, 0, nan))
    boards.board("third")

    shown = samples(boards)

    assert shown[of("other", "outbox_pending_messages")] == 2
    assert isnan(shown[of("other", "outbox_oldest_pending_age_seconds")])


def test_what_counts_never_goes_back() -> None:
    """Prometheus takes a smaller count for one that has begun anew, and adds all of it again."""
    boards = Boards(max_named=0)
    boards.board("second")[0].count_outcomes(confirmed(3))
    boards.board("third")[0].count_outcomes(confirmed(4))
    boards.board("third")[0].stats(Stats(9, 0, 0, 1.0))
    boards.forget("third")

    shown = samples(boards)

    assert shown[of("other", "outbox_confirm_seconds_count")] == 7
    route = "[('exchange', ''), ('outbox', 'other'), ('routing_key', 'celery')]"
    assert shown[f"outbox_published_total{route}"] == 7
    assert isnan(shown[of("other", "outbox_pending_messages")])


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("app/tenant_1", 200, "ready"),
        ("app/tenant_2", 503, "no connection to: database"),
        ("app/tenant_3", 404, "no outbox of that name is served here"),
    ],
)
def test_one_of_them_can_be_asked_for(name: str, code: int, said: str) -> None:
    """By its name: whether this one can be published now."""
    boards = Boards()
    for number, up in ((1, True), (2, False)):
        health = boards.board(f"app/tenant_{number}")[1]
        health.database_up, health.broker_up = up, True

    assert ready(boards, f"?outbox={quote(name)}") == (code, said)


def test_every_gauge_that_is_no_sum_is_known_by_its_name() -> None:
    """A name that was written wrongly would be added up in silence."""
    families = {family.name: family for family in Metrics().registry.collect()}

    assert {*families} >= HIGHEST | LOWEST
    assert not [name for name in HIGHEST | LOWEST if families[name].type in COUNTING]
    ages = {
        name for name in families if name.endswith(("_age_seconds", "_up", "_timestamp_seconds"))
    }
    assert ages <= HIGHEST | LOWEST


def test_routes_of_one_among_many_are_fewer() -> None:
    """Five hundred outboxes with a hundred routes each would be too many series."""
    boards = Boards()
    for number in range(MAX_ROUTES + 5):
        boards.board("shop")[0].count_outcomes(confirmed(1, "events", f"customer.{number}"))

    shown = [name for name in samples(boards) if name.startswith("outbox_published_total")]

    assert len(shown) == MAX_ROUTES + 1


@pytest.mark.parametrize(
    ("up", "broker", "code", "said"),
    [
        ([], True, 200, "ready"),
        ([True, True], True, 200, "ready"),
        (
            [True, False],
            True,
            200,
            "ready; 1 of 2 outboxes have no connection to their database",
        ),
        ([False, False], True, 503, "2 of 2 outboxes have no connection to their database"),
        ([True, True], False, 503, "no connection to: broker"),
    ],
)
def test_ready_is_as_long_as_any_is(up: list[bool], broker: bool, code: int, said: str) -> None:
    """A tenant's database that is away does not take the others' relay out of service."""
    boards = Boards()
    boards.health.broker_up = broker
    for number, database in enumerate(up):
        boards.board(str(number))[1].database_up = database

    assert ready(boards) == (code, said)
