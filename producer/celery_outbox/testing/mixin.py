"""The outbox in test classes: unittest's and Django's, with no pytest."""

from typing import Any, ClassVar, Literal

from celery import Celery

from celery_outbox.testing.tester import OutboxTest, OutboxTester


class OutboxTestMixin:
    """Gives each test of a class its own `self.outbox`, an OutboxTester.

    To stand before the test class: `class OrderTest(OutboxTestMixin, TestCase)`.
    """

    #: The app whose outbox is tested; None: the current one.
    outbox_app: ClassVar[Celery | None] = None
    #: Where results of tasks are kept: in memory, or in the app's own backend.
    outbox_results: ClassVar[Literal["memory", "app"]] = "memory"
    #: Of an asynchronous outbox_target(), an AsyncOutboxTester.
    outbox: OutboxTester

    def outbox_target(self) -> object | None:
        """Return where to look into the outbox; None: Django's own database."""
        return None

    def setUp(self) -> None:
        """Begin."""
        super().setUp()  # type: ignore[misc]  # of the test class that this is mixed into
        test: Any = self
        self.outbox = test.enterContext(
            OutboxTest(self.outbox_app, self.outbox_target(), results=self.outbox_results)
        )
