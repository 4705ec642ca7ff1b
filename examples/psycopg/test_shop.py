"""The example's own test: what an order would send, with nothing committed and no broker."""

from typing import Any

from shop import place_order, take_back


def test_an_order_sends_its_invoice(connection: Any, outbox_messages: Any) -> None:
    """One task, with the id that the caller got."""
    task_id = place_order(connection, "tea")

    (message,) = outbox_messages(connection)
    assert (message.task, message.message_id) == ("shop.send_invoice", task_id)


def test_an_order_can_be_taken_back(connection: Any, outbox_messages: Any) -> None:
    """As long as its task is pending, no broker is asked."""
    task_id = place_order(connection, "tea")

    assert take_back(connection, task_id)
    assert outbox_messages(connection) == []
