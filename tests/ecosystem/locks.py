"""What packages with locks of their own have in common: the warning, and what to send instead."""

from contextlib import suppress
from typing import Any

import psycopg
import pytest

from celery_outbox import OutboxCelery
from tests.ecosystem.conftest import Stored


def is_warned_of_once(caplog: pytest.LogCaptureFixture, package: str) -> None:
    """The log names the task, the package and the way out, and says nothing else."""
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert f"shop.rebuild is a task of {package}" in warning
    assert "dedup_key" in warning


def is_replaced_by_dedup_key(
    app: OutboxCelery, connection: psycopg.Connection[Any], stored: Stored
) -> None:
    """A rollback takes it along; of two wishes that commit one is stored, and both get its id."""

    @app.task(name="shop.rebuild", shared=False)
    def rebuild(shelf: int) -> None: ...

    once: dict[str, Any] = {"dedup_key": "rebuild-7"}  # celery-types does not know it
    with suppress(ZeroDivisionError), app.outbox.transaction(connection):
        rebuild.apply_async((7,), **once)
        raise ZeroDivisionError
    wishes = []
    for _ in range(2):
        with app.outbox.transaction(connection):
            wishes.append(rebuild.apply_async((7,), **once))

    assert [task for task, _ in stored()] == ["shop.rebuild"]
    assert wishes[0].id == wishes[1].id
