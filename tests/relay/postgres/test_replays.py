"""Whether a message was confirmed before it was claimed is told by the receipts."""

from time import monotonic

import psycopg
import pytest

from outbox_relay.errors import RelayError
from outbox_relay.postgres.replays import Replays
from outbox_relay.settings import Secret, Settings
from tests.fixtures.rows import commit_rows

#: So many seconds ago, in that slot.
SENT = """
INSERT INTO outbox.receipt (sent_at, slot, span, ids)
VALUES (now() - %s * interval '1 s', %s, int8range(%s, %s, '[]'), %s)
"""
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def replays(url: str) -> Replays:
    """Those of the outbox there."""
    return Replays(Settings(Secret("OUTBOX_DATABASE_URL", url), Secret("OUTBOX_BROKER_URL", "")))


def test_receipts_before_the_claim_count(database: str) -> None:
    """Neither that of this claim, which may be there by now, nor another message's of that id."""
    commit_rows(database, 3)
    with psycopg.connect(database) as connection:
        ids = [id_ for (id_,) in connection.execute("SELECT id FROM outbox.message ORDER BY id")]
        for ago, slot, told in ((3600, 3, ids[:1]), (600, 3, ids[:2]), (9, 4, ids), (0, 3, ids)):
            connection.execute(SENT, (ago, slot, told[0], told[-1], told))
    known = replays(database)
    now = monotonic()
    found = known([(id_, 3, now - 5.0) for id_ in ids])
    assert found.keys() == {ids[0], ids[1]}
    assert [round(now - at) for at in found.values()] == [600, 600]
    assert known([(ids[0], 3, now - 1800.0)]).keys() == {ids[0]}
    assert known([(ids[1], 3, now - 1800.0)]) == {}
    known.close()


def test_a_database_that_is_away_is_not_asked_all_the_time() -> None:
    """It is an error once, and then nothing is known for a while."""
    known = replays(NOWHERE)
    with pytest.raises(RelayError):
        known([(1, 0, 0.0)])
    assert known([(1, 0, 0.0)]) == {}
