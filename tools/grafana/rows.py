"""What the dashboard shows, from top to bottom: the answers first, then where to look for the why.

Each relay reports the whole backlog, so that backlogs are the highest number any relay shows of an
outbox, and rates are sums over all relays. Where a relay serves many outboxes, numbers are of all
those that are chosen; where it serves one, there is no label `outbox`, and it is chosen.
"""

from collections.abc import Sequence
from typing import Final

from grafana.machinery import HEALTH, POSTGRES, RELAYS
from grafana.messages import ANSWERS, CONFIRMS, EFFECTS, FAILURES, FLOW, HELD, LAG
from grafana.panels import Panel

ROWS: Final[Sequence[tuple[str, Sequence[Panel]]]] = (
    ("Is it flowing?", ANSWERS),
    ("Flow", FLOW),
    ("Lag", LAG),
    ("Held back: pauses, rates, depths", HELD),
    ("Confirms", CONFIRMS),
    ("Failures and dead letters", FAILURES),
    ("Workers: what became of it", EFFECTS),
    ("Broker and database", HEALTH),
    ("Relays and their outboxes", RELAYS),
    ("Postgres: bloat and horizon", POSTGRES),
)
