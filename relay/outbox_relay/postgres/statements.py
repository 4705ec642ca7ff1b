"""The statements that claims, fetches and outcomes are. `{outbox}` stands for the schema's name.

Three rules hold throughout. The database's clock decides time. No plan depends on statistics: each
statement is a handful of look-ups by primary key, and the session allows nothing else
(`database.SESSION`). And no transaction is open while a broker works.
"""

from typing import Final

from outbox_relay.core.claim import ClaimedRow
from outbox_relay.core.message import Message
from outbox_relay.postgres.statement import Statement, columns

#: Confirmed rows go, and leave a receipt. Fenced by the claim they were published under: where a
#: snapshot or a sequence was set back, other messages get their ids. What is not under that claim
#: any more, or is locked by somebody's open transaction, is returned, for SETTLE_LATE.
SETTLE: Final = Statement(
    "settle",
    """
WITH settled AS (
    DELETE FROM {outbox}.ready WHERE id = ANY (ARRAY(
        SELECT id FROM {outbox}.ready
        WHERE id = ANY (%(ids)s::bigint[]) AND claim_id = %(claim_id)s
        FOR UPDATE SKIP LOCKED))
    RETURNING id, slot, lease_until
), receipt AS (
    INSERT INTO {outbox}.receipt (slot, span, ids, claimed_at)
    SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id),
           nullif(min(lease_until), '-infinity') - %(lease_seconds)s * interval '1 second'
    FROM settled GROUP BY slot
)
SELECT id FROM unnest(%(ids)s::bigint[]) AS confirmed (id)
WHERE (SELECT count(*) FROM settled) < cardinality(%(ids)s::bigint[])
  AND id <> ALL (ARRAY(SELECT id FROM settled))
""",
)

#: Confirmed rows that SETTLE has passed over go as well, whoever holds or has parked them by now,
#: if they are of the message that was confirmed: a confirm is final. Others may have got its id
#: meanwhile; and while it waited, it may have been moved to another slot. Where another relay has
#: settled it since it was claimed, what there is of it now was made after that: it came home as a
#: dead letter, or somebody has it sent again. That stays. Returns those that are still locked; all
#: others are settled, or not there any more.
SETTLE_LATE: Final = Statement(
    "settle_late",
    """
WITH confirmed AS MATERIALIZED (
    SELECT found.id, found.slot
    FROM unnest(%(ids)s::bigint[], %(slots)s::smallint[], %(message_ids)s::text[],
                %(ages)s::float8[]) AS confirmed (id, slot, message_id, age),
         LATERAL (SELECT m.id, m.slot FROM {outbox}.message m
                  WHERE m.id = confirmed.id AND m.message_id = confirmed.message_id
                  ORDER BY m.slot <> confirmed.slot LIMIT 1) found
    WHERE 0 = (SELECT count(*) FROM {outbox}.receipt r
               WHERE r.span @> found.id AND found.id = ANY (r.ids) AND r.slot = found.slot
                 AND r.sent_at > clock_timestamp() - confirmed.age * interval '1 second')
), settled AS (
    DELETE FROM {outbox}.ready WHERE id = ANY (ARRAY(
        SELECT r.id FROM confirmed c, LATERAL (
            SELECT id FROM {outbox}.ready WHERE id = c.id AND slot = c.slot
            OFFSET 0 FOR UPDATE SKIP LOCKED) r))
    RETURNING id, slot
), taken_back AS (
    DELETE FROM {outbox}.parked WHERE id = ANY (ARRAY(
        SELECT p.id FROM confirmed c, LATERAL (
            SELECT id FROM {outbox}.parked WHERE id = c.id AND slot = c.slot
            OFFSET 0 FOR UPDATE SKIP LOCKED) p))
    RETURNING id, slot
), gone AS MATERIALIZED (
    SELECT id, slot FROM settled UNION SELECT id, slot FROM taken_back
), receipt AS (
    INSERT INTO {outbox}.receipt (slot, span, ids)
    SELECT slot, int8range(min(id), max(id), '[]'), array_agg(id) FROM gone GROUP BY slot
), left_there AS MATERIALIZED (
    SELECT id, slot FROM confirmed EXCEPT SELECT id, slot FROM gone
)
SELECT l.id FROM left_there l, LATERAL (
    SELECT 1 FROM {outbox}.ready WHERE id = l.id AND slot = l.slot
    UNION ALL
    SELECT 1 FROM {outbox}.parked WHERE id = l.id AND slot = l.slot) w
""",
)

#: Claim what is next. It is committed together with SETTLE, but a statement after it: one that both
#: deleted and claimed a row whose lease has ended would only claim it. Nothing is published before
#: this is committed: a crash can lose no row that a broker has seen. SKIP LOCKED lets relays share.
CLAIM: Final = Statement(
    "claim",
    """
UPDATE {outbox}.ready
SET claim_id = %(claim_id)s, lease_until = now() + %(lease_seconds)s * interval '1 second'
WHERE id = ANY (ARRAY(
    SELECT id FROM {outbox}.ready
    WHERE id > %(floor)s AND lease_until < now()
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING """
    + ", ".join(ClaimedRow._fields),
)

#: Whether CLAIM or CLAIM_LANES would find anything. An idle relay asks this up to forty times a
#: second.
PROBE: Final = Statement(
    "probe",
    """
SELECT WHERE EXISTS (SELECT FROM {outbox}.ready WHERE id > %(floor)s AND lease_until < now())
          OR EXISTS (SELECT FROM {outbox}.lane_news WHERE id > %(above)s)
""",
)

#: What can be large, as `Message` has it, and what a message takes in memory: all of it counts.
LARGE: Final = {
    "headers": "json_send(headers)",
    "properties": "json_send(properties)",
    "body": "body",
    "declare": "declare::text",
}
_SIZE: Final = """octet_length(body) + octet_length(headers::text)
           + octet_length(properties::text) + octet_length(declare::text)"""

#: What was claimed, as it goes on the wire. Of large messages the large columns stay behind (NULL).
#: %(clock)s is the relay's monotonic clock, so that a message's age needs no comparison of two
#: machines' clocks.
FETCH: Final = Statement(
    "fetch",
    "SELECT "
    + columns(
        Message._fields,
        {
            "id": "id",
            "slot": "slot",
            "claim_id": "%(claim_id)s::bigint",
            "attempts": "0",
            "suspicion": "0",
            "message_id": "message_id",
            "exchange": "exchange",
            "routing_key": "routing_key",
            "headers": "CASE WHEN small THEN headers END",
            "properties": "CASE WHEN small THEN properties END",
            "body": "CASE WHEN small THEN body END",
            "content_type": "content_type",
            "content_encoding": "content_encoding",
            "mandatory": "mandatory",
            "declare": "CASE WHEN small THEN declare::text END",
            "expired": "coalesce(expires_at <= now(), false)",
            "born": "%(clock)s::float8"
            " - date_part('epoch', now() - greatest(created_at, available_at))",
            "task": "task",
            "claimed": "%(clock)s::float8",
        },
    )
    + f"""
FROM (SELECT *, {_SIZE} <= %(small)s AS small
      FROM {{outbox}}.message
      WHERE slot = %(slot)s AND id = ANY (%(ids)s::bigint[]) OFFSET 0) claimed
""",
)

#: Large messages, oldest first, as far as %(bytes)s reach and at least one: they must not fill the
#: memory. octet_length() alone reads no body; what is beyond %(limit)s no broker would take.
FETCH_LARGE: Final = Statement(
    "fetch_large",
    f"""
SELECT id, body_size, {", ".join(f"CASE WHEN fits THEN {each} END" for each in LARGE.values())}
FROM (SELECT *, octet_length(body) AS body_size, octet_length(body) <= %(limit)s::int
             AND sum({_SIZE}) FILTER (WHERE octet_length(body) <= %(limit)s::int)
                 OVER (ORDER BY id) - ({_SIZE}) < %(bytes)s AS fits
      FROM unnest(%(ids)s::bigint[], %(slots)s::smallint[]) AS wanted (of, stored_in),
           LATERAL (SELECT * FROM {{outbox}}.message
                    WHERE id = wanted.of AND slot = wanted.stored_in OFFSET 0) m) large
""",
)

#: Rows that have expired go, and are noted as expired: unpublished, or published so that a worker
#: ends them, and confirmed. Fenced by the claim; returns those that are locked.
EXPIRE: Final = Statement(
    "expire",
    """
WITH ended AS (
    SELECT * FROM unnest(%(ids)s::bigint[], %(claim_ids)s::bigint[], %(attempts)s::smallint[])
        AS ended (id, claim_id, attempts)
), held AS (
    SELECT e.*, r.slot FROM ended e, LATERAL (
        SELECT slot FROM {outbox}.ready
        WHERE id = e.id AND claim_id = e.claim_id OFFSET 0 FOR UPDATE SKIP LOCKED) r
), gone AS (
    DELETE FROM {outbox}.ready WHERE id = ANY (ARRAY(SELECT id FROM held))
), expired AS (
    INSERT INTO {outbox}.expiry (id, slot, attempts, last_error)
    SELECT id, slot, attempts, %(error)s FROM held ON CONFLICT (id, slot) DO NOTHING
)
SELECT e.id FROM ended e, LATERAL (
    SELECT FROM {outbox}.ready WHERE id = e.id AND claim_id = e.claim_id OFFSET 0) r
WHERE e.id <> ALL (ARRAY(SELECT id FROM held))
""",
)

#: Refused rows leave the hot table until their time comes, or for good. Fenced by the claim: a row
#: that another relay has claimed meanwhile is left alone. LATERAL with OFFSET 0 can
#: only be a look-up for each failed row; a plain join may become a walk through all of `ready`.
#: Where another message with its id is parked, it gets a new one: no two can be parked under one.
#: Returns those that are locked by somebody's open transaction, and stay where they are.
PARK: Final = Statement(
    "park",
    """
WITH failed AS (
    SELECT * FROM unnest(%(ids)s::bigint[], %(claim_ids)s::bigint[], %(states)s::text[],
                         %(attempts)s::smallint[], %(suspicions)s::smallint[],
                         %(delays)s::float8[], %(errors)s::text[], %(routes)s::text[],
                         %(ranks)s::smallint[])
        AS failed (id, claim_id, state, attempts, suspicion, delay, error, route, rank)
), held AS (
    SELECT f.*, r.slot, r.lane,
           EXISTS (SELECT FROM {outbox}.parked p WHERE p.id = f.id AND p.slot <> r.slot) AS taken
    FROM failed f, LATERAL (
        SELECT slot, lane FROM {outbox}.ready
        WHERE id = f.id AND claim_id = f.claim_id OFFSET 0 FOR UPDATE SKIP LOCKED) r
), moved AS (
    DELETE FROM {outbox}.ready WHERE id = ANY (ARRAY(SELECT id FROM held))
), renumbered AS MATERIALIZED (
    SELECT * FROM {outbox}.renumber(ARRAY(SELECT id FROM held WHERE taken),
                                    ARRAY(SELECT slot FROM held WHERE taken))
    WHERE (SELECT bool_or(taken) FROM held)
), parked AS (
    INSERT INTO {outbox}.parked
        (id, slot, state, available_at, attempts, suspicion, last_error, lane, route, rank)
    SELECT coalesce(n.number, h.id), h.slot, state, now() + delay * interval '1 second', attempts,
           suspicion, error, lane, route, rank
    FROM held h LEFT JOIN renumbered n ON n.id = h.id AND n.slot = h.slot
    ON CONFLICT (id) DO NOTHING
)
SELECT f.id FROM failed f, LATERAL (
    SELECT FROM {outbox}.ready WHERE id = f.id AND claim_id = f.claim_id OFFSET 0) r
WHERE f.id <> ALL (ARRAY(SELECT id FROM held))
""",
)

#: Claim the next message of each lane there is news of; see schema/outbox/2_lanes.sql.
CLAIM_LANES: Final = Statement(
    "claim_lanes",
    """
SELECT * FROM {outbox}.claim_lanes(%(above)s, %(news)s, %(claim_id)s, %(lease_seconds)s)
""",
)

#: Give back what is held, as it was or as a poison suspect. Fenced: all of `claim_ids` are ours.
#: `claim_id` stays: it tells that the message may have been on the wire (see claim_dedup).
#: Not a join with an array: a plan made while the table is empty would read all of it ever after.
#: A row that somebody's open transaction has locked is passed over: its lease runs out.
RELEASE: Final = Statement(
    "release",
    """
UPDATE {outbox}.ready
SET lease_until = '-infinity', suspicion = suspicion + %(suspicion)s
WHERE id = ANY (ARRAY(
    SELECT id FROM {outbox}.ready
    WHERE id = ANY (%(ids)s::bigint[]) AND claim_id = ANY (%(claim_ids)s::bigint[])
    FOR UPDATE SKIP LOCKED))
""",
)

#: Keep claims that are still in use. One that is locked cannot be claimed by another either.
RENEW: Final = Statement(
    "renew",
    """
UPDATE {outbox}.ready SET lease_until = now() + %(lease_seconds)s * interval '1 second'
WHERE id = ANY (ARRAY(
    SELECT id FROM {outbox}.ready
    WHERE id = ANY (%(ids)s::bigint[]) AND claim_id = ANY (%(claim_ids)s::bigint[])
    FOR UPDATE SKIP LOCKED))
""",
)
