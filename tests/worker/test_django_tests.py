"""Idempotent tasks in the transaction that Django puts around a test: it does not end with them."""

from typing import Any

import pytest
from celery import Celery
from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types

from celery_inbox import idempotent
from tests.worker.ledger import Deliver, Ledger
from tests.worker.libraries import NOTE


@pytest.mark.usefixtures("django_database")
def test_deliveries_within_a_transaction(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """Run once for a message, a duplicate is answered; the checks at the end of a test pass."""

    @app.task(bind=True)
    @idempotent("default")
    def charge(self: Any, handle: str) -> str:
        with connections[handle].cursor() as cursor:
            cursor.execute(NOTE)
        return "charged"

    with transaction.atomic():
        for message_id in ("one", "one", "two", "one"):
            assert deliver(charge, id=message_id) == "charged"
        connections["default"].check_constraints()
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM effect")
            assert cursor.fetchone() == (2,)
        transaction.set_rollback(True)
    assert (ledger.inbox(), ledger.effects()) == ([], [])
