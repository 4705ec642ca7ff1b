"""Tasks, as in any Celery project."""

from celery import shared_task

from shop.models import Order


@shared_task
def send_invoice(order_id: int) -> None:
    """Send the invoice of an order."""
    Order.objects.filter(id=order_id).update(invoiced=True)
