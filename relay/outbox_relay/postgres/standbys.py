"""How far the standbys have come: what the fence goes by.

A standby counts once it tells how far it has replayed: what only receives the log (pg_receivewal,
a base backup) does not, and a logical subscriber, which has a slot of its kind, is no copy.
"""

from typing import Final

from outbox_relay.core.claim import Standbys
from outbox_relay.postgres.pipeline import Query
from outbox_relay.postgres.statement import Statement

#: Asked after a claim, in its transaction: whatever the claim has seen was committed before, so its
#: commit is in the log by the position that is read here, be it flushed yet or not. What is too old
#: to be true (a standby that was cut off) is only too low.
STANDBYS: Final = Statement(
    "standbys",
    """
WITH standby AS MATERIALIZED (
    SELECT flush_lsn FROM pg_stat_get_wal_senders()
    WHERE flush_lsn IS NOT NULL AND replay_lsn IS NOT NULL
      AND pid <> ALL (ARRAY(SELECT active_pid FROM pg_replication_slots
                            WHERE slot_type = 'logical' AND active_pid IS NOT NULL))
)
SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS written,
       coalesce((SELECT flush_lsn - '0/0' FROM standby
                 ORDER BY flush_lsn DESC LIMIT 1 OFFSET %(standbys)s - 1), 0)::bigint AS flushed,
       (SELECT count(*) FROM standby) AS connected
""",
)

#: The login, where it lacks the right: others are shown standbys without their positions.
WITHOUT_RIGHT: Final = Statement(
    "without_right",
    "SELECT CASE WHEN NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN current_user::text END",
)


def query(standbys: int) -> Query:
    """Ask how far so many standbys are."""
    return Query(STANDBYS, {"standbys": standbys}, Standbys._make)


def lacking(login: str) -> str:
    """What to say where it lacks the right."""
    right = f'GRANT pg_read_all_stats TO "{login}"'
    return f"OUTBOX_FENCE needs to see how far the standbys are: {right}"
