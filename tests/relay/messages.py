"""Messages as the relay holds them after a claim, one column changed at a time."""

from typing import Any

from outbox_relay.core.message import Message

_ORDINARY = Message(
    id=1,
    slot=0,
    claim_id=7,
    attempts=0,
    suspicion=0,
    message_id="11111111-1111-1111-1111-111111111111",
    exchange="",
    routing_key="celery",
    headers=b'{"lang": "py", "task": "shop.bill", "id": "1", "eta": null, "retries": 0}',
    properties=b'{"delivery_mode": 2, "correlation_id": "11111111-1111-1111-1111-111111111111"}',
    body=b'[[42], {}, {"callbacks": null}]',
    content_type="application/json",
    content_encoding="utf-8",
    mandatory=True,
    declare="[]",
    expired=False,
    born=0.0,
)


def a_message(**columns: Any) -> Message:
    """Return an ordinary Celery message that differs in the given columns; JSON may be text."""
    for name in {"headers", "properties"} & columns.keys():
        if isinstance(columns[name], str):
            columns[name] = columns[name].encode()
    return _ORDINARY._replace(**columns)


def messages(count: int, **columns: Any) -> list[Message]:
    """Return that many messages with ids (and message ids) of their own, from 1."""
    return [a_message(id=n, message_id=f"m{n}", **columns) for n in range(1, count + 1)]
