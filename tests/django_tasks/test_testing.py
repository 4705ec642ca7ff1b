"""Tests of a project that uses `celery_outbox.testing` run Django's tasks with it."""

from typing import Any

import pytest
from django.db import transaction  # type: ignore[import-untyped]  # Django ships no types
from django.tasks import TaskResultStatus  # type: ignore[import-untyped]  # the same

from celery_outbox.django.tasks.running import NAME
from celery_outbox.testing.tester import OutboxTest
from tests.django_tasks import work


def test_they_are_run_in_process(app: Any) -> None:
    """`outbox.run()` runs what the transaction would send, and its result can be read."""
    with OutboxTest(app, None) as outbox, transaction.atomic():
        result = work.add.enqueue(1, right=2)
        failing = work.fail.enqueue("no")
        with pytest.raises(work.Rejected):
            outbox.run()
        result.refresh()
        failing.refresh()
        outbox.assert_sent(NAME, args=[work.add.module_path, [1], {"right": 2}])

    assert result.return_value == 3
    assert failing.status == TaskResultStatus.FAILED
