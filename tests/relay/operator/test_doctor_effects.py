"""`doctor` on what is missing: it looks for so long and no longer, and says how far it has come."""

from datetime import UTC, datetime

import pytest
import redis

from outbox_relay.core.finding import Level
from outbox_relay.core.place import Bounds, Broker, Ready, Search
from outbox_relay.operator.audit import Found
from outbox_relay.operator.doctor import missing as module
from outbox_relay.operator.missing import Inquiry, Missing
from tests.relay.conftest import Cli, Outbox, finding

NOW = datetime.now(UTC)


def lost(number: int) -> Missing:
    """One that a worker should have finished."""
    return Missing(
        number, f"m{number}", "shop.bill", "", "celery", "[]", NOW, NOW, None, None, None, None, 0
    )


@pytest.mark.parametrize("complete", [True, False])
def test_of_much_it_says_how_much_was_looked_at(complete: bool) -> None:
    """What was not looked at is not said to be well, nor to be gone."""
    found = Found(9_000, [lost(n) for n in range(3)], NOW, Inquiry(NOW), complete)
    broker = Broker({"celery": Ready(70_000, None)}, search=Search({}, complete, 50_000))

    judged = module.judge(found, broker, {})

    assert judged.level is (Level.PROBLEM if complete else Level.WARN)
    for words in (
        "of the oldest 9,000 messages",
        "at least 3: 3 x shop.bill",
        "(queue 3; of what the broker has, 50,000 messages were looked at)",
    ):
        assert (words in judged.text) != complete


def test_a_long_list_of_redis_is_not_read_to_its_end(
    cli: Cli, outbox: Outbox, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read up to a bound, and that is said."""
    monkeypatch.setattr(module, "SEARCH", Bounds(500, 60.0))
    outbox.connection.execute(
        "INSERT INTO inbox.watched VALUES ('shop.bill', now() - interval '1 day')"
    )
    for _ in range(3):
        outbox.add_sent(ago="10 m")
    with redis.Redis.from_url(valkey_url) as client:
        client.rpush("celery", *["{}"] * 2_000)

    answer = cli("doctor", OUTBOX_BROKER_URL=valkey_url)

    text = finding(answer, "warn", "effects")
    assert "of 3 messages confirmed in the last hour, no worker has finished 3" in text
    assert "of what the broker has, 500 messages were looked at" in text


def test_of_very_many_some_are_counted(
    cli: Cli, outbox: Outbox, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a bound, and that is said."""
    monkeypatch.setattr(module, "MAX_MISSING", 1)
    outbox.connection.execute(
        "INSERT INTO inbox.watched VALUES ('shop.bill', now() - interval '1 day')"
    )
    outbox.add_sent(ago="10 m")

    answer = cli("doctor", OUTBOX_BROKER_URL=valkey_url)

    assert "no worker has finished at least 1" in finding(answer, "problem", "effects")
