"""What is held on purpose, as the database has it; see schema/outbox/8_holds.sql."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from outbox_relay.core.holds import Hold
from outbox_relay.core.rates import Grant
from outbox_relay.postgres.statement import Statement

#: What is paused and what is limited now, in the order in which it is looked at: mostly nothing.
HOLDS: Final = Statement(
    "holds",
    """
(SELECT kind, pattern, extract(epoch FROM until - now())::double precision, who, reason,
        NULL::double precision, NULL::double precision
 FROM {outbox}.hold WHERE until IS NULL OR until > now()
 ORDER BY until DESC NULLS FIRST, target)
UNION ALL
(SELECT kind, pattern, NULL, who, reason, per_second, burst
 FROM {outbox}.bucket ORDER BY kind = 'all', target)
""",
)
#: How many messages wait for each pause, and for what else holds them.
HELD: Final = Statement(
    "held",
    "SELECT target, messages FROM {outbox}.held_counts() ORDER BY messages DESC LIMIT 100",
)
#: For how many seconds the oldest pause that has no end has lasted; 0 where there is none.
ENDLESS: Final = Statement(
    "endless",
    """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - since)), 0)::float8
FROM {outbox}.hold WHERE until IS NULL
""",
)
#: Tokens for what waits for its turn, and the seconds until there is one more, which are fewer than
#: none if there is. Of a bucket that gives none the row is seen as it was before, locked or not.
TAKE_TOKENS: Final = Statement(
    "take_tokens",
    """
SELECT b.target, coalesce(t.granted, 0),
       (1 + coalesce(t.granted, 0) - coalesce(t.there, least(b.burst, b.tokens + b.per_second
           * greatest(0, extract(epoch FROM clock_timestamp() - b.refilled_at))::float8)))
           / b.per_second
FROM {outbox}.bucket b
LEFT JOIN {outbox}.take_tokens(%(targets)s::text[], %(wanted)s::bigint[]) t USING (target)
WHERE b.target = ANY (%(targets)s::text[])
""",
)


class Holding:
    """What one connection asks about it. `run` is how statements are run there."""

    def __init__(self, run: Callable[..., list[Any]]) -> None:
        self._run = run

    def read(self) -> list[Hold]:
        """What is held on purpose, or sent no faster than somebody allows."""
        return [Hold(*row) for row in self._run(HOLDS)]

    def take_tokens(self, wanted: Mapping[str, int]) -> list[Grant]:
        """As many as are there, or soon will be, of those wanted, by the target of the limit."""
        asked = {"targets": list(wanted), "wanted": list(wanted.values())}
        return [Grant(*row) for row in self._run(TAKE_TOKENS, asked)]
