"""Strikes a bank while it works, and compares what it did with what its teller remembers."""

import os
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

from tests.faults import bank
from tests.faults.branch import Branch
from tests.faults.teller import Teller

_STALLED_SECONDS = 120.0
#: So many more transfers done, and a strike counts as overcome.
_RECOVERED = 20


def seed() -> int:
    """FAULTS_SEED, to repeat a run; else a new one, which is printed."""
    chosen = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"\nFAULTS_SEED={chosen}")
    return chosen


def watch(branch: Branch, teller: Teller, until: Callable[[], bool], what: str) -> None:
    """Keep everything alive until something holds; fail when nothing moves any more."""
    moved = monotonic()
    while not until():
        branch.keep_alive()
        teller.finished()
        executed = branch.executed()
        if executed > teller.executed:
            teller.executed, moved = executed, monotonic()
        if monotonic() - moved > _STALLED_SECONDS:
            raise AssertionError(f"{what}: nothing moves after {teller.executed} transfers")


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault: when it struck, and how long until work went on."""

    fault: str
    at: int
    seconds: float


def strike_all(
    branch: Branch, teller: Teller, faults: list[str], wanted: int, chance: random.Random
) -> list[Strike]:
    """Kill one thing after the other, in shuffled order at random moments of the work."""
    chance.shuffle(faults)
    moments = sorted(chance.sample(range(wanted // 20, wanted * 9 // 10), len(faults)))
    strikes = []
    for fault, moment in zip(faults, moments, strict=True):
        watch(branch, teller, lambda moment=moment: teller.executed >= moment, fault)  # type: ignore[misc]  # a default binds the loop's value; mypy infers no such lambda
        at, start = teller.executed, monotonic()
        branch.kill(fault, chance)
        goal = min(at + _RECOVERED, wanted)
        watch(branch, teller, partial(_recovered, branch, teller, goal), fault)
        strikes.append(Strike(fault, at, round(monotonic() - start, 1)))
        print(f"  {fault} killed after {at} transfers, {strikes[-1].seconds} s until work went on")
    return strikes


def _recovered(branch: Branch, teller: Teller, goal: int) -> bool:
    """Whether so many are done, or all there is: what Redis lost comes with the replay only."""
    if teller.executed >= goal:
        return True
    return teller.finished() and branch.unsent() == 0 and branch.unfinished() == 0


def work_through(branch: Branch, wanted: int, faults: dict[str, int]) -> Teller:
    """Order and execute transfers while everything is killed, and wait for the quiet."""
    chosen, start = seed(), monotonic()
    branch.start_workers()
    with Teller(branch.database, random.Random(f"teller {chosen}"), wanted, wanted // 20) as teller:
        all_faults = [fault for fault, times in faults.items() for _ in range(times)]
        strikes = strike_all(branch, teller, all_faults, wanted, random.Random(f"storm {chosen}"))
        settle(branch, teller)
    assert Counter(strike.fault for strike in strikes) == faults
    assert branch.crashes() >= faults["backend"]
    print(f"  all done after {monotonic() - start:.0f} s")
    return teller


def replay(branch: Branch, teller: Teller, since: str) -> int:
    """Publish again what was confirmed since then, wait for the quiet, return how many."""
    command = branch.relay_command("replay", f"--since={since}", "--yes")
    assert command.wait() == 0
    watch(branch, teller, lambda: branch.executed() >= len(teller.memory.committed), "the lost")
    settle(branch, teller)
    (answer,) = re.findall(r"([\d,]+) pending again", command.output())
    return int(answer.replace(",", ""))


def settle(branch: Branch, teller: Teller) -> None:
    """Wait until nothing is on its way any more."""
    watch(branch, teller, teller.finished, "the last order")
    for _ in ("transfers", "confirmations"):  # which transfers send, until the last is done
        watch(branch, teller, lambda: branch.unsent() == 0, "an empty outbox")
        watch(branch, teller, lambda: branch.unfinished() == 0, "an empty queue")


def assert_exact(branch: Branch, teller: Teller) -> None:
    """Every committed transfer happened once, no other ever, and every balance is right."""
    memory = teller.memory
    wanted = sorted(transfer.number for transfer in memory.committed)
    done = branch.numbers("done")
    twice = [number for number, times in Counter(done).items() if times > 1]
    lost, unexpected = set(wanted) - set(done), set(done) - set(wanted)
    confirmations = [number for number in wanted if number % bank.CONFIRMED == 0]

    assert (sorted(lost), twice, sorted(unexpected)) == ([], [], [])
    assert branch.numbers("confirmed") == confirmations
    assert dict(branch.run("SELECT id, balance FROM bank.account")) == memory.balances()
    assert branch.run("SELECT sum(balance) FROM bank.account") == [(0,)]
    assert branch.count("count(*) FROM inbox.processed") == len(wanted) + len(confirmations)
    assert memory.rolled_back


def report(branch: Branch, teller: Teller) -> None:
    """Print the figures of a run."""
    memory = teller.memory
    print(
        f"  {len(memory.committed)} transfers, each exactly once; {len(memory.rolled_back)} rolled "
        f"back, none executed; {branch.absorbed()} duplicates absorbed; "
        f"{memory.commits_looked_up} commits of unknown outcome looked up"
    )
