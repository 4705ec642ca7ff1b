"""`make bench` on tiny numbers, as a process: everything runs, and what it finds is kept.

Its figures mean nothing here, and none is looked at.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.experiments import Brokers, catalogue
from bench.scale import FULL, QUICK

CHECKOUT = Path(__file__).resolve().parents[2]
DRAINED = "1 classic queue, 1 process"
EXPERIMENTS = (
    "1 classic queue, limit",
    DRAINED,
    "stub broker, 1 process",
    "producer",
    "inbox",
    "latency",
    "sustained",
    "refusals",
    "pauses",
    "rates",
    "tracing",
)
SECONDS = 200  # many times what it takes; a machine may be busy


@pytest.mark.timeout(SECONDS + 20)
def test_it_measures_and_reports(rabbitmq_root: Path, tmp_path: Path) -> None:
    """Each value, the verdicts and a plot are kept; of the servers nothing is left."""
    done = _bench("--smoke", "--folder", str(tmp_path), "--only", *EXPERIMENTS)

    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    measured = results["rounds"][0]
    assert results["failures"] == []
    assert all(any(name.startswith(each) for name in measured) for each in EXPERIMENTS)
    assert {f"{DRAINED}/{what}" for what in ("rate", "sender", "postgres", "broker")} <= {*measured}
    assert "1 classic queue, 1 process, against the limit" in {g["goal"] for g in results["goals"]}
    assert "fsync on" in results["conditions"]["Postgres"]
    assert {file.name for file in tmp_path.iterdir()} == {"results.json", "performance.png"}


def test_full_scale_adds_what_takes_long() -> None:
    """The rarer kinds of queue and the backlog of a million are measured at full scale only."""
    quick, full = ({each.name for each in catalogue(scale, Brokers())} for scale in (QUICK, FULL))

    assert {"1 lazy queue, limit", "backlog of 1,000,000"} <= full - quick


def _bench(*arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTBOX_")}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env={**environment, "PYTHONPATH": str(CHECKOUT / "tools")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
