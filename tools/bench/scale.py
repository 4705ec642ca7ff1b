"""How much is measured: one frozen set of numbers per mode, so that no experiment has its own."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers of messages, and seconds."""

    name: str
    repeats: int
    #: rounds of what takes long
    heavy_repeats: int
    #: drained from the outbox in one measurement, per kind of broker
    slow_queue: int
    fast_queue: int
    stub: int
    redis: int
    #: for what waits for every confirm, or makes one task at a time
    one_by_one: int
    #: transactions of 100 messages by a producer
    transactions: int
    #: pending messages of which the first `head` are drained
    backlogs: tuple[int, ...]
    head: int
    #: drained while another transaction holds the horizon; sent messages lying about
    horizon: int
    sent: int
    #: Confirmed messages that an audit looks at.
    audited: int
    #: Tasks that do nothing, of which a worker runs so many in one turn.
    worked: int
    #: Sent messages in each of fifteen old retention slots.
    kept: int
    #: Tasks sent in one transaction, and those after which memory is read.
    many: int
    remembered: int
    #: Messages of one tenant among many.
    tenant: int
    #: Commits of each connection in a turn.
    commits: int
    #: Messages that wait for each route that takes nothing, and for how long others go by.
    refused: int
    refusals_seconds: float
    latency_seconds: float
    #: for each limit of a rate, once its burst has gone
    rated_seconds: float
    latency_rates: tuple[int, ...]
    #: until everything has slowed down, and while it is measured
    idle_rest_seconds: float
    idle_seconds: float
    #: messages a second, for so long, and how long a slot of the table is then
    sustained_rate: int
    sustained_seconds: int
    sustained_slot_seconds: int
    #: also the queues nobody asks for first: lazy, version 2, four at a time
    all_kinds: bool


QUICK: Final = Scale(
    name="quick",
    repeats=3,
    heavy_repeats=1,
    slow_queue=25_000,
    fast_queue=50_000,
    stub=100_000,
    redis=50_000,
    one_by_one=1_500,
    transactions=15,
    backlogs=(10_000, 200_000),
    head=10_000,
    horizon=100_000,
    sent=200_000,
    audited=500_000,
    worked=45_000,
    kept=50_000,
    many=100_000,
    remembered=100_000,
    tenant=1_000_000,
    commits=500,
    refused=500,
    refusals_seconds=60,
    latency_seconds=10,
    rated_seconds=60,
    latency_rates=(1, 50, 1000),
    idle_rest_seconds=75,
    idle_seconds=60,
    sustained_rate=3_000,
    sustained_seconds=60,
    sustained_slot_seconds=4,
    all_kinds=False,
)

FULL: Final = Scale(
    name="full",
    repeats=3,
    heavy_repeats=1,
    slow_queue=60_000,
    fast_queue=120_000,
    stub=300_000,
    redis=200_000,
    one_by_one=5_000,
    transactions=50,
    backlogs=(1_000, 10_000, 100_000, 1_000_000),
    head=10_000,
    horizon=500_000,
    sent=2_000_000,
    audited=10_000_000,
    worked=90_000,
    kept=1_400_000,
    many=100_000,
    remembered=1_000_000,
    tenant=1_000_000,
    commits=2000,
    refused=1_000,
    refusals_seconds=600,
    latency_seconds=20,
    rated_seconds=60,
    latency_rates=(1, 50, 200, 1000),
    idle_rest_seconds=75,
    idle_seconds=60,
    sustained_rate=5_000,
    sustained_seconds=300,
    sustained_slot_seconds=10,
    all_kinds=True,
)

#: Shows that everything runs; its figures mean nothing.
SMOKE: Final = Scale(
    name="smoke",
    repeats=1,
    heavy_repeats=1,
    slow_queue=400,
    fast_queue=400,
    stub=400,
    redis=400,
    one_by_one=100,
    transactions=2,
    backlogs=(200, 600),
    head=200,
    horizon=300,
    sent=300,
    audited=200,
    worked=100,
    kept=60,
    many=300,
    remembered=300,
    tenant=300,
    commits=20,
    refused=20,
    refusals_seconds=4,
    latency_seconds=0.5,
    rated_seconds=1,
    latency_rates=(100,),
    idle_rest_seconds=0.2,
    idle_seconds=0.2,
    sustained_rate=200,
    sustained_seconds=4,
    sustained_slot_seconds=1,
    all_kinds=False,
)

SCALES: Final = {scale.name: scale for scale in (QUICK, FULL, SMOKE)}
