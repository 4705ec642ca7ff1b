"""A task that expired before it was published ends as it does without an outbox: revoked."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError

from tests.end_to_end import tasks
from tests.end_to_end.conftest import Lab
from tests.fixtures.rows import ids_in
from tests.fixtures.waiting import wait_until

DEADLINE = 60.0


def past() -> datetime:
    """A moment ago."""
    return datetime.now(UTC) - timedelta(seconds=1)


def sent(lab: Lab, signature: Any, **options: Any) -> Any:
    """Send it through the outbox; its result."""
    with lab.transaction():
        return signature.apply_async(**options)


def test_its_result_is_revoked(lab: Lab) -> None:
    """Whoever waits for it hears that it will not come."""
    result = sent(lab, tasks.add.s(1, 2), expires=past())

    with pytest.raises(TaskRevokedError):
        result.get(timeout=DEADLINE)
    wait_until(lambda: result.id in ids_in(lab.database, "expired"), DEADLINE, "its state")
    assert result.id not in ids_in(lab.database, "dead")


def test_a_chord_ends(lab: Lab) -> None:
    """A header task that expired ends the chord, instead of hanging it for ever."""
    late = tasks.add.s(1, 2).set(expires=past())

    with pytest.raises((ChordError, TaskRevokedError)):
        sent(lab, chord([late, tasks.add.s(3, 4)], tasks.total.s())).get(timeout=DEADLINE)


def test_a_chain_ends(lab: Lab) -> None:
    """Its first step is revoked; the second is never sent."""
    late = tasks.add.s(1, 2).set(expires=past())
    result = sent(lab, chain(late, tasks.add.s(3)))

    with pytest.raises(TaskRevokedError):
        result.parent.get(timeout=DEADLINE)
