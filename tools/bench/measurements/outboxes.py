"""Many outboxes in one relay: what it costs at rest, and what a tenant's backlog costs the others.

Twenty databases of ten schemas each. Lone tasks are committed in schemas taken at random, which
mostly rest: first while nothing else goes on, then while one tenant's backlog is worked off. Each
is timed from the end of its commit to its receipt, by the one clock of this machine.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Final

import psycopg

from bench.instruments import cpu
from bench.instruments.latencies import percentiles
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues
from bench.load.queues import Route
from bench.programs.relay import Relay
from outbox_migrations import upgrade

Connection = psycopg.Connection[tuple[Any, ...]]

DATABASES: Final = 20
SCHEMAS: Final = 10
PATIENCE_SECONDS: Final = 600
#: Between two lone tasks, in seconds, on the average.
PAUSE: Final = 0.2
#: Lone tasks while nothing else goes on; and at least so many beside the backlog.
ALONE: Final = 150
#: Older messages of a queue are dropped: what lies there is of no interest.
ROUTE: Final = Route("tenants", queues.Kind("short", (("x-max-length", 1000),)))
CONNECTIONS: Final = """
SELECT count(*) FROM pg_stat_activity WHERE starts_with(application_name, 'outbox-relay')
"""
TEMPLATE: Final = "tenants"


@dataclass(frozen=True, slots=True)
class Tenant:
    """An outbox, and a connection to it."""

    connection: Connection
    schema: str

    def value(self, query: str, *parameters: object) -> Any:
        """The one value that a query gives, with {outbox} for the schema."""
        found = self.connection.execute(query.format(outbox=self.schema).encode(), parameters)
        return found.fetchall()[0][0]


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Memory, connections, CPU at rest; latencies of lone tasks alone and beside a backlog."""
    node = lab.require_rabbitmq()
    urls = _databases(lab)
    with ExitStack() as stack:
        stack.callback(_drop, lab, urls)
        connections = [stack.enter_context(psycopg.connect(u, autocommit=True)) for u in urls]
        tenants = [Tenant(c, f"tenant_{n}") for c in connections for n in range(SCHEMAS)]
        with _relay(lab, urls, node.url()) as relay:
            _await_relay(lab, tenants[::SCHEMAS])
            alone = _lone(lab, tenants, lambda count: count < ALONE)
            sleep(lab.scale.idle_rest_seconds)
            at_rest = _at_rest(lab, relay)
            busy = _beside_a_backlog(lab, tenants, relay)
        queues.delete(node.url(), [ROUTE])
    return {"alone": percentiles(alone), **at_rest, **busy}


def _await_relay(lab: Lab, tenants: Sequence[Tenant]) -> None:
    """Until it watches all databases: a task in each has been settled."""
    for tenant in tenants:
        messages.fill_schema(tenant.connection, lab, tenant.schema, 1, ROUTE)
    for tenant in tenants:
        _settled(tenant, tenant.value("SELECT max(id) FROM {outbox}.message"))


def _at_rest(lab: Lab, relay: Relay) -> dict[str, dict[str, float]]:
    began, spent = monotonic(), cpu.spent(relay.pid)
    sleep(lab.scale.idle_seconds)
    share = 100 * (cpu.spent(relay.pid) - spent) / (monotonic() - began)
    return {
        "at rest": {
            "share": share,
            "size": _megabytes(relay),
            "number": float(lab.value(CONNECTIONS)),
        }
    }


def _beside_a_backlog(
    lab: Lab, tenants: Sequence[Tenant], relay: Relay
) -> dict[str, dict[str, float]]:
    big, *others = tenants
    messages.fill_schema(big.connection, lab, big.schema, lab.scale.tenant, ROUTE)
    left = "SELECT EXISTS (SELECT FROM {outbox}.ready)"
    sizes, numbers, began = [0.0], [0.0], monotonic()

    def going_on(_: int) -> bool:
        sizes.append(_megabytes(relay))
        numbers.append(float(lab.value(CONNECTIONS)))
        return bool(big.value(left))

    latencies = _lone(lab, others, going_on)
    rate = lab.scale.tenant / (monotonic() - began)
    return {
        "beside a backlog": {
            **percentiles(latencies),
            "size": max(sizes),
            "number": max(numbers),
        },
        "the backlog": {"rate": rate},
    }


def _lone(lab: Lab, tenants: Sequence[Tenant], going_on: Callable[[int], bool]) -> list[float]:
    """Commit lone tasks while that goes on; seconds from each commit to its receipt."""
    chance = random.Random(len(tenants))
    committed: list[tuple[Tenant, int, float]] = []
    while going_on(len(committed)):
        tenant = chance.choice(tenants)
        messages.fill_schema(tenant.connection, lab, tenant.schema, 1, ROUTE)
        at = time()
        committed.append((tenant, tenant.value("SELECT max(id) FROM {outbox}.message"), at))
        sleep(chance.expovariate(1 / PAUSE))
    return [_settled(tenant, id_) - at for tenant, id_, at in committed]


def _settled(tenant: Tenant, id_: int) -> float:
    query = """
        SELECT max(extract(epoch FROM sent_at))::float8 FROM {outbox}.receipt
        WHERE span @> %s::bigint AND %s = ANY (ids)
    """
    deadline = monotonic() + PATIENCE_SECONDS
    while (at := tenant.value(query, id_, id_)) is None:
        if monotonic() > deadline:
            raise Unbelievable(f"a task of {tenant.schema} was not settled")
        sleep(0.05)
    return float(at)


def _megabytes(relay: Relay) -> float:
    status = Path(f"/proc/{relay.pid}/status").read_text()
    return float(status.partition("VmRSS:")[2].split()[0]) / 1024


def _databases(lab: Lab) -> list[str]:
    url = lab.postgres.create_database(TEMPLATE)
    for number in range(SCHEMAS):
        upgrade(url, schema=f"tenant_{number}", component="outbox")
    return [
        lab.postgres.create_database(f"{TEMPLATE}_{number}", TEMPLATE)
        for number in range(DATABASES)
    ]


def _drop(lab: Lab, urls: Sequence[str]) -> None:
    for name in (TEMPLATE, *(url.rpartition("/")[2] for url in urls)):
        lab.postgres.drop_database(name)


@contextmanager
def _relay(lab: Lab, urls: Sequence[str], broker: str) -> Iterator[Relay]:
    path = lab.folder / "outboxes"
    path.write_text("".join(f"{url} tenant_*\n" for url in urls))
    relay = Relay(lab.folder, OUTBOX_DATABASES_FILE=str(path), OUTBOX_BROKER_URL=broker)
    try:
        yield relay
        relay.process.terminate()
        if (code := relay.process.wait(PATIENCE_SECONDS)) != 0:
            raise Unbelievable(f"the relay ended with {code}:\n{relay.words}")
    finally:
        relay.kill()
