"""Tests of the view and of its task: `manage.py test`. No broker, no worker."""

from django.test import TestCase

from celery_outbox.testing import OutboxTestMixin
from shop.models import Order
from shop.tasks import send_invoice


class OrderTest(OutboxTestMixin, TestCase):
    """The outbox of the test is `self.outbox`."""

    def test_an_order_gets_its_invoice(self) -> None:
        """The view sends one task; run, it does its work in the transaction of the test."""
        response = self.client.post("/orders/", {"item": "tea"})
        order_id = response.json()["order"]
        self.outbox.assert_sent(send_invoice, args=[order_id], count=1)

        self.outbox.run()

        assert Order.objects.get(id=order_id).invoiced

    def test_an_order_that_is_refused(self) -> None:
        """Leaves neither a row nor a task."""
        self.client.raise_request_exception = False
        assert self.client.post("/orders/?reject", {"item": "tea"}).status_code == 500

        self.outbox.assert_nothing_sent()
