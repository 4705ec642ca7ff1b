"""A drain ends with the receipt of its last message, and knows how long nothing went on."""

import psycopg

from bench.instruments.drain import finish

#: Settled after a second, then 20 seconds of silence, then a second's worth, then two more.
RECEIPTS = """
INSERT INTO outbox.receipt (slot, span, ids, sent_at) VALUES
    (0, '[1,2]', '{1,2}', timestamptz '2026-01-01 00:00:01Z'),
    (0, '[3,4]', '{3,4}', timestamptz '2026-01-01 00:00:21Z'),
    (0, '[5,5]', '{5}', timestamptz '2026-01-01 00:00:22Z'),
    (0, '[6,6]', '{6}', timestamptz '2026-01-01 00:02:00Z')
RETURNING timestamptz '2026-01-01 00:00:00Z'
"""


def test_the_longest_silence_before_the_finish_is_found(database: str) -> None:
    """Between the receipts, until the one that finishes: what comes later is nobody's stall."""
    with psycopg.connect(database) as connection:
        clock = connection.execute(RECEIPTS).fetchall()[0][0]

        assert finish(connection, clock, 2) == (2, 1.0, 1.0)
        assert finish(connection, clock, 5) == (5, 22.0, 20.0)
