"""For your tests: see what was sent, run it in the process, with neither broker nor worker.

With pytest, `pytest_plugins = ["celery_outbox.testing"]` in conftest.py gives you the fixtures
`outbox` (an OutboxTester) and `outbox_messages`. Elsewhere OutboxTestMixin gives you `self.outbox`.
Messages are looked for in the database, in the transaction of the test: what was rolled back to a
savepoint was not sent.
"""

import sys

from celery_outbox.testing.drain import Drained, EndlessRun
from celery_outbox.testing.execution import TaskRun
from celery_outbox.testing.messages import OutboxMessage
from celery_outbox.testing.mixin import OutboxTestMixin
from celery_outbox.testing.tester import (
    AsyncOutboxTester,
    FailedOnPurpose,
    OutboxTest,
    OutboxTester,
)

if "pytest" in sys.modules:  # which looks here for what a plugin has
    from celery_outbox.testing.plugin import (
        outbox_app,
        outbox_fixture,
        outbox_messages,
        outbox_results,
        outbox_target,
    )
    from celery_outbox.testing.report import pytest_addoption, pytest_configure

    __plugin__ = (outbox_app, outbox_fixture, outbox_messages, outbox_results, outbox_target)
    __hooks__ = (pytest_addoption, pytest_configure)

__all__ = [
    "AsyncOutboxTester",
    "Drained",
    "EndlessRun",
    "FailedOnPurpose",
    "OutboxMessage",
    "OutboxTest",
    "OutboxTestMixin",
    "OutboxTester",
    "TaskRun",
]
