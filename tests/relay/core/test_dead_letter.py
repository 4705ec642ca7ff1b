"""Why a broker gave a message up, in words, from whatever its headers hold."""

from typing import Any

import pytest

from outbox_relay.core.dead_letter import KINDS, message_id_of, why

DEATH = {"reason": "rejected", "queue": "celery", "count": 2}


@pytest.mark.parametrize(
    ("headers", "kind", "words"),
    [
        ({"x-death": [DEATH]}, "rejected", "rejected: dead letter of queue 'celery', 2 time(s)"),
        (
            {"x-death": [{**DEATH, "reason": "delivery_limit", "count": 1}]},
            "delivery limit",
            "delivery limit: dead letter of queue 'celery', 1 time(s)",
        ),
        ({"x-death": [{**DEATH, "reason": "expired"}]}, "expired", "expired: "),
        ({"x-death": [{**DEATH, "reason": "maxlen"}]}, "overflow", "overflow: "),
        (
            {
                "x-death": [DEATH],
                "x-first-death-reason": "expired",
                "x-first-death-queue": "mail",
            },
            "rejected",
            "; first expired in queue 'mail'",
        ),
        (
            {"x-put-aside": {"reason": "unregistered task", "queue": "q", "worker": "w@h"}},
            "unregistered task",
            "unregistered task: worker w@h could not begin it, queue 'q'",
        ),
        ({"x-put-aside": {"reason": "not a task"}}, "not begun", "not a task: "),
        ({}, "unknown", "gives no reason"),
    ],
)
def test_the_reason(headers: dict[str, Any], kind: str, words: str) -> None:
    """Each of RabbitMQ's, and each of a worker's."""
    found, text = why(headers)

    assert found == kind
    assert words in text


@pytest.mark.parametrize(
    "headers",
    [
        {"x-death": "often"},
        {"x-death": []},
        {"x-death": ["x"]},
        {"x-death": [{}]},
        {"x-death": [{"reason": ["x"], "queue": {"a": 1}, "count": "\n" * 9999}]},
        {"x-put-aside": 7},
        {"x-put-aside": {"reason": "\0" * 9999}},
    ],
)
def test_nonsense_is_a_reason_too(headers: dict[str, Any]) -> None:
    """Anybody may write headers: the words stay short and on one line."""
    kind, words = why(headers)

    assert kind in KINDS
    assert len(words) < 500
    assert words.isprintable()


def test_the_message_id() -> None:
    """Celery's header, else the property; nothing but text is one."""
    assert message_id_of({"id": "a"}, {"message_id": "b"}) == "a"
    assert message_id_of({}, {"message_id": "b"}) == "b"
    assert message_id_of({"id": 7}, {}) is None
