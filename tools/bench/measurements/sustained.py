"""Whether the tables stay as small as they are while messages come, go and are forgotten.

Weeks in a minute: a slot of the message table is half a day, and here a few seconds; autovacuum
looks every ten seconds, not every sixty. Everything else is as it always is: producers insert, a
relay publishes to a broker that costs nothing, and slots whose messages are sent are emptied while
both go on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Final

from bench.instruments.drain import running
from bench.instruments.stored import await_settled
from bench.lab import Lab
from bench.load import messages
from bench.load.queues import STUB
from bench.programs.stub_broker import stub_brokers

#: A part of the messages of each second, inserted in one statement.
TICK_SECONDS: Final = 0.1
#: Slots behind the one that is written to whose messages are kept.
KEPT: Final = 2

#: The clock that chooses the slot, sped up. The slot of the real clock is left out: emptying it is
#: refused, as nobody can be writing to any other.
FASTER: Final = """
ALTER TABLE outbox.message ALTER COLUMN slot SET DEFAULT
    ((extract(epoch FROM now())::bigint / 43200
      + 1 + extract(epoch FROM clock_timestamp())::bigint / {seconds} % 15) % 16)::smallint
"""
AS_BEFORE: Final = """
ALTER TABLE outbox.message ALTER COLUMN slot SET DEFAULT
    (extract(epoch FROM now())::bigint / 43200 % 16)::smallint
"""
EMPTY_OLD: Final = """
SELECT sum(outbox.empty_slot(
    ((extract(epoch FROM now())::bigint / 43200
      + 1 + (extract(epoch FROM clock_timestamp())::bigint / %s + behind) %% 15) %% 16)::smallint))
FROM generate_series(1, 14 - %s) AS behind
"""
#: Heap, indexes and TOAST, in MB; receipts are kept as long as real days, and so do not matter.
SIZES: Final = """
SELECT sum(pg_total_relation_size(oid)) FILTER (WHERE relname LIKE 'message\\_%') / 1e6,
       sum(pg_total_relation_size(oid)) FILTER (WHERE relname IN ('ready', 'parked')) / 1e6
FROM pg_class WHERE relnamespace = 'outbox'::regnamespace AND relkind = 'r'
"""
LAG: Final = "SELECT coalesce(extract(epoch FROM oldest_pending_age), 0)::float8 FROM outbox.stats"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Sizes after a third of the time and at the end, and the longest that a message waited."""
    scale = lab.scale
    messages.reset(lab)
    sizes: list[tuple[float, float]] = []
    lags: list[float] = []
    with _faster(lab), stub_brokers(1) as [(url, _)], running(lab, url):
        began = following = monotonic()
        sent = 0
        while following - began < scale.sustained_seconds:
            messages.fill(lab, portion := round(scale.sustained_rate * TICK_SECONDS), STUB)
            sent += portion
            following += TICK_SECONDS
            lags.append(float(lab.value(LAG)))
            if len(lags) % round(1 / TICK_SECONDS) == 0:
                lab.admin.execute(EMPTY_OLD, (scale.sustained_slot_seconds, KEPT))
                sizes.append(lab.admin.execute(SIZES).fetchall()[0])
            sleep(max(0.0, following - monotonic()))
        seconds = monotonic() - began
        await_settled(lab, sent)
    third = max(sizes[: len(sizes) // 3 + 1])
    last = max(sizes[-len(sizes) // 3 :])
    return {
        "at work": {"rate": sent / seconds},
        "message, first third": {"size": float(third[0])},
        "message, last third": {"size": float(last[0])},
        "ready and parked, first third": {"size": float(third[1])},
        "ready and parked, last third": {"size": float(last[1])},
        "lag": {"p99": 1000 * sorted(lags)[int(len(lags) * 0.99)]},
    }


@contextmanager
def _faster(lab: Lab) -> Iterator[None]:
    lab.admin.execute(FASTER.format(seconds=lab.scale.sustained_slot_seconds).encode())
    lab.admin.execute("ALTER SYSTEM SET autovacuum_naptime = '10s'")
    lab.admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        lab.admin.execute(AS_BEFORE)
        lab.admin.execute("ALTER SYSTEM RESET autovacuum_naptime")
        lab.admin.execute("SELECT pg_reload_conf()")
