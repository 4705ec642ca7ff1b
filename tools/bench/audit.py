"""How long an audit takes: so many confirmed messages, each with its receipt but for fifty."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Final

from bench import messages
from bench.lab import Lab, Unbelievable
from bench.queues import Route

MISSING: Final = 50
PATIENCE_SECONDS: Final = 1_800

WATCHED: Final = """
INSERT INTO inbox.watched (task, since)
SELECT DISTINCT task, now() - interval '1 day' FROM outbox.message ON CONFLICT DO NOTHING
"""
FINISHED: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'bench', now(), now() FROM outbox.message
ORDER BY id OFFSET %(missing)s
"""
RECEIPTS: Final = "TRUNCATE inbox.receipt, inbox.watched"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Messages audited a second, by the command itself."""
    messages.reset(lab)
    lab.admin.execute(RECEIPTS.encode())
    messages.fill(lab, lab.scale.audited, (Route("audit"),))
    messages.send_all(lab)
    lab.admin.execute(WATCHED.encode())
    lab.admin.execute(FINISHED.encode(), {"missing": MISSING})
    messages.settle(lab)
    lab.admin.execute(b"VACUUM (ANALYZE) inbox.receipt")
    began = perf_counter()
    done = subprocess.run(
        [str(Path(sys.executable).with_name("outbox-relay")), "audit", "--older-than=0", "--json"],
        env={**os.environ, "OUTBOX_DATABASE_URL": lab.database_url, "OUTBOX_BROKER_URL": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    seconds = perf_counter() - began
    if len(_named(done)) != MISSING:
        raise Unbelievable(f"{MISSING} are missing; it said {done.stdout[:200]}{done.stderr[:500]}")
    lab.admin.execute(RECEIPTS.encode())
    messages.reset(lab)
    return {"messages": {"rate": lab.scale.audited / seconds}}


def _named(done: subprocess.CompletedProcess[str]) -> list[object]:
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return []
    return list(said if isinstance(said, list) else said.get("missing", []))
