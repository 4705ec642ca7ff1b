"""Whether a message was confirmed before it was claimed is told by the receipts."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import psycopg
import pytest

from outbox_relay.errors import RelayError
from outbox_relay.postgres.replays import NAME, Replays
from outbox_relay.settings import Secret, Settings
from tests.fixtures.rows import commit_rows
from tests.fixtures.waiting import wait_until

#: So many seconds ago, in that slot.
SENT = """
INSERT INTO outbox.receipt (sent_at, slot, span, ids)
VALUES (now() - %s * interval '1 s', %s, int8range(%s, %s, '[]'), %s)
"""
WAITING = """
SELECT pid FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'
"""
SECONDS = 30.0
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


def test_an_answer_that_comes_late_is_not_about_this_claim(database: str) -> None:
    """Its own receipt is not taken for an earlier one, and hides none."""
    commit_rows(database, 2)
    known, claimed = replays(database), monotonic()
    known([(0, 0, claimed)])  # it is connected
    with psycopg.connect(database) as connection, ThreadPoolExecutor(1) as pool:
        ids = [id_ for (id_,) in connection.execute("SELECT id FROM outbox.message ORDER BY id")]
        connection.execute("LOCK TABLE outbox.receipt IN ACCESS EXCLUSIVE MODE")
        for ago, told in ((600, ids[:1]), (0, ids)):
            connection.execute(SENT, (ago, 3, told[0], told[-1], told))
        answer = pool.submit(known, [(id_, 3, claimed) for id_ in ids])
        with psycopg.connect(database, autocommit=True) as looking:
            wait_until(lambda: looking.execute(WAITING, (NAME,)).fetchone(), SECONDS, "the wait")
        connection.execute("SELECT pg_sleep(0.1)")
        connection.commit()
        found = answer.result(SECONDS)
    known.close()

    assert [*found] == ids[:1]
    assert round(monotonic() - found[ids[0]], -1) == 600


def test_a_database_that_is_away_is_not_asked_all_the_time() -> None:
    """It is an error once, and then nothing is known for a while."""
    known = replays(NOWHERE)
    with pytest.raises(RelayError):
        known([(1, 0, 0.0)])
    assert known([(1, 0, 0.0)]) == {}
