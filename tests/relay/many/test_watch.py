"""The watch of a real database: whoever has something to do calls, whatever happens to it."""

from collections.abc import Callable, Iterator
from queue import SimpleQueue

import psycopg
import pytest
from structlog.testing import capture_logs

from outbox_relay.many.lines import parse
from outbox_relay.many.outbox import Outbox
from outbox_relay.many.watch import APPLICATION_NAME, Watch
from outbox_relay.observe import watch as module
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE, Tenant
from tests.relay.many.test_lines import base


class Heard:
    """What a watch tells; `meanwhile` is done once, on its thread, when it first sees somebody."""

    def __init__(self) -> None:
        self.calls = SimpleQueue[str]()
        self.up: set[str] = set()
        self.meanwhile: Callable[[], object] | None = None

    def called(self, outbox: Outbox) -> None:
        """It has something to do."""
        self.calls.put(outbox.settings.schema)

    def watched(self, outbox: Outbox, *, up: bool) -> None:
        """Whether its database is there."""
        (self.up.add if up else self.up.discard)(outbox.settings.schema)
        if self.meanwhile is not None:
            do, self.meanwhile = self.meanwhile, None
            do()

    def next(self) -> str:
        """Who calls next."""
        return self.calls.get(timeout=DEADLINE)


@pytest.fixture
def tenants(databases: list[list[Tenant]]) -> list[Tenant]:
    """The outboxes of one database."""
    return databases[0]


@pytest.fixture
def heard() -> Heard:
    """What is told."""
    return Heard()


@pytest.fixture
def watch(tenants: list[Tenant], heard: Heard) -> Iterator[Watch]:
    """A watch for all of them, to be started."""
    outboxes = [outbox_of(tenant) for tenant in tenants]
    watch = Watch(outboxes[0].settings, heard)
    for outbox in outboxes:
        watch.look_after(outbox)
    yield watch
    watch.stop()


def outbox_of(tenant: Tenant) -> Outbox:
    """As a line of the file gives it."""
    (line,) = parse(f"{tenant.url} {tenant.schema}", base())
    return line.outbox(tenant.schema)


def cut(tenant: Tenant) -> None:
    """End the session of whoever watches."""
    with psycopg.connect(tenant.url) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database()",
            [APPLICATION_NAME],
        ).fetchall()
    assert ended == [(True,)]


def test_a_schema_that_is_gone_after_an_outage_blinds_it_for_no_other(
    watch: Watch, heard: Heard, tenants: list[Tenant]
) -> None:
    """It was there when the session was lost, and is not when there is another."""
    gone, other, _ = tenants
    watch.start()
    wait_until(lambda: len(heard.up) == len(tenants), DEADLINE, "all are watched")
    with psycopg.connect(gone.url) as connection:
        connection.execute(f"DROP SCHEMA {gone.schema} CASCADE".encode())
    cut(gone)
    wait_until(lambda: gone.schema not in heard.up, DEADLINE, "the loss is told")
    other.commit()

    assert heard.next() == other.schema
    assert gone.schema not in heard.up


def test_a_call_is_heard_though_the_session_is_lost_over_it(
    watch: Watch, heard: Heard, tenants: list[Tenant]
) -> None:
    """Between seeing that there is work and leaving its bell to whoever will serve it."""
    tenants[0].commit()
    heard.meanwhile = lambda: cut(tenants[0])
    watch.start()

    assert heard.next() == tenants[0].schema


def test_a_fault_of_ours_is_not_the_end_of_it(
    watch: Watch, heard: Heard, tenants: list[Tenant], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, all are told to be away, and it begins anew."""
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.0)

    def fail() -> None:
        raise KeyError("4111-1111")

    heard.meanwhile = fail
    with capture_logs() as logs:
        watch.start()
        wait_until(lambda: len(heard.up) == len(tenants), DEADLINE, "all are watched again")
    tenants[1].commit()

    assert heard.next() == tenants[1].schema
    assert [each["watch"] for each in logs if each["event"] == "watch_failed"] == ["watch"]
    assert "4111" not in str(logs)
