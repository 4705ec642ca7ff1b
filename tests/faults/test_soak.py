"""Schedules of random faults, each from a seed: on RabbitMQ where it is even, else on Valkey.

`make soak` runs them for SOAK_MINUTES (60). `make soak SOAK_MINUTES=0 SOAK_SEED=n` repeats one.
"""

import os
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic

import pytest

from servers import Postgres
from tests.faults.lab import Lab
from tests.faults.soak import FAULTS, Soak

SoakLab = Callable[[int], AbstractContextManager[Lab]]


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak(soak_lab: SoakLab, mortal_postgres: Postgres) -> None:
    """However long: every schedule keeps every promise."""
    ends = monotonic() + 60 * float(os.environ.get("SOAK_MINUTES") or 60)
    seed = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))
    schedules = 0
    while schedules == 0 or monotonic() < ends:
        run(soak_lab, mortal_postgres, seed + schedules)
        schedules += 1
    print(f"\n{schedules} schedules of {FAULTS} faults: nothing lost")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("broker", ["rabbitmq", "valkey"])
def test_a_schedule(soak_lab: SoakLab, mortal_postgres: Postgres, broker: str) -> None:
    """One for each broker, with a new seed each time."""
    seed = 2 * random.SystemRandom().randrange(10**6) + (broker == "valkey")
    run(soak_lab, mortal_postgres, seed)


def run(soak_lab: SoakLab, database: Postgres, seed: int) -> None:
    """One schedule."""
    print(f"\nSOAK_SEED={seed}", flush=True)
    with soak_lab(seed) as lab:
        Soak(lab, database, seed).run()
