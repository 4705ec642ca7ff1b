"""No error of a send repeats what the message holds, whatever that is and wherever it stands."""

import traceback
from decimal import Decimal
from typing import Any

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celery_outbox import OutboxError
from tests.producer.conftest import make_shop

CANARY = "7130771307"


class Shows:
    """An object whose every text is the secret."""

    def __repr__(self) -> str:
        return CANARY


def around(secrets: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for values that hold one of the secrets, somewhere."""
    return st.recursive(
        secrets,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.tuples(inner)
            | st.dictionaries(st.sampled_from(["a", "b" * 300, "__type__"]), inner, max_size=2)
        ),
        max_leaves=3,
    )


SECRETS = around(
    st.sampled_from(
        [
            CANARY,
            CANARY + "\0",
            CANARY + "\ud800",
            CANARY * 40,
            int(CANARY),
            int(CANARY * 4),
            float(CANARY) + 0.5,
            Decimal(f"{CANARY}.{CANARY}"),
            CANARY.encode(),
            CANARY.encode() + b"\xff",
            {CANARY},
            Shows(),
            Shows,
            complex(int(CANARY), 1),
            range(int(CANARY)),
        ]
    )
)
#: Where Celery lets a caller put what he likes, without it being what names or routes a message.
PLACES = st.fixed_dictionaries(
    {"args": st.tuples(SECRETS, SECRETS)},
    optional={
        "headers": st.dictionaries(st.sampled_from(["x", "y"]), SECRETS, max_size=2),
        "serializer": st.sampled_from(["json", "yaml", "pickle"]),
        "compression": st.sampled_from(["gzip", "bzip2"]),
        "correlation_id": SECRETS,
        "reply_to": SECRETS,
        "user_id": SECRETS,
        "timestamp": SECRETS,
        "ordering_key": SECRETS,
        "dedup_key": SECRETS,
    },
)


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(options=PLACES, event=st.booleans())
def test_an_error_shows_nothing(trap: str, database: str, options: Any, event: bool) -> None:
    """Neither does its text nor those of its causes."""
    shop = make_shop(trap)
    with psycopg.connect(database) as connection:
        try:
            with shop.app.outbox.using(connection):
                if event:
                    payload, _ = options.pop("args")
                    shop.app.outbox.publish(None, payload, routing_key="q", **options)
                else:
                    shop.add.apply_async(**options)
        except OutboxError as error:
            said = "".join(traceback.format_exception(error))
        else:
            said = ""
        connection.rollback()

    assert CANARY not in said
    assert CANARY[:6] not in said
