"""Tests of what sends tasks, and of the tasks: no broker, no worker, nothing committed."""

from datetime import timedelta
from typing import Any

from shop import ask_for_review, charge, place_order


def test_an_order_is_charged_and_gets_its_receipt(connection: Any, outbox: Any) -> None:
    """The chain goes on to its end; what is for later stays."""
    order_id = place_order(connection, "tea")
    outbox.assert_sent(charge, args=[order_id])

    ran = outbox.run()

    assert [run.task for run in ran] == ["shop.charge", "shop.send_receipt"]
    assert [message.task for message in ran.left] == ["shop.ask_for_review"]


def test_a_customer_is_asked_after_three_days(connection: Any, outbox: Any) -> None:
    """Not a minute earlier."""
    place_order(connection, "tea")
    outbox.at(timedelta(days=3, minutes=-1)).run()
    outbox.assert_sent(ask_for_review, count=1)

    (asked,) = outbox.at(timedelta(days=3)).run()

    assert (asked.task, asked.state) == ("shop.ask_for_review", "SUCCESS")


def test_a_bank_that_is_away(connection: Any, outbox: Any) -> None:
    """The charge is tried again a minute later; until then there is no receipt."""
    outbox.fail_next(charge, ConnectionError("the bank is away"))
    place_order(connection, "tea")

    assert [run.state for run in outbox.run()] == ["RETRY"]
    charged, receipt = outbox.at(timedelta(minutes=2)).run()
    assert (charged.state, charged.retries, receipt.task) == ("SUCCESS", 1, "shop.send_receipt")
