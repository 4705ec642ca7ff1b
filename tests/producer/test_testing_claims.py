"""What a test claims of its sends: with pytest, unittest and Django; and what it is told."""

import re
import subprocess
import sys
import unittest
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import ANY
from uuid import UUID

import pytest
from asgiref.sync import sync_to_async
from celery import Celery
from django.db import connections, transaction  # type: ignore[import-untyped]  # ships no types
from django.test import TestCase  # type: ignore[import-untyped]  # the same
from kombu import Exchange, Queue

from celery_outbox import NoTransaction, OutboxCelery
from celery_outbox.testing import OutboxTest, OutboxTester, OutboxTestMixin
from tests.producer.conftest import Connection, Shop, make_shop

pytest_plugins = ["celery_outbox.testing.plugin"]  # its fixtures, not its report


@pytest.fixture
def outbox_app(shop: Shop) -> OutboxCelery:
    """The app under test."""
    return shop.app


@pytest.fixture
def outbox_target(connection: Connection) -> Iterator[Connection]:
    """A connection with a transaction in progress, which is rolled back."""
    connection.execute("SELECT 1")
    yield connection
    connection.rollback()


@pytest.fixture
def sent(shop: Shop, outbox_target: Connection) -> None:
    """Three messages."""
    with shop.app.outbox.using(outbox_target):
        shop.add.delay(1, 2)
        shop.add.apply_async(((1, 2),), {"y": UUID(int=0)}, queue="slow")
        shop.app.outbox.publish(None, {"id": 5}, exchange="events", routing_key="paid")


@pytest.mark.usefixtures("sent")
def test_claims_that_hold(shop: Shop, outbox: OutboxTester) -> None:
    """By task or name, arguments, queue and count; what was sent is returned."""
    assert len(outbox.assert_sent(shop.add)) == 2
    outbox.assert_sent("shop.add", args=[1, 2], kwargs={}, queue="celery", count=1)
    outbox.assert_sent(shop.add, args=((1, 2),), kwargs={"y": UUID(int=0)}, queue="slow")
    outbox.assert_sent(shop.add, args=[1, ANY], count=1)
    outbox.assert_sent("shop.total", count=0)
    outbox.assert_sent("paid", args={"id": 5})

    assert [message.task for message in outbox.sent()] == ["shop.add", "shop.add", "paid"]


@pytest.mark.usefixtures("sent")
def test_claims_that_do_not_hold(shop: Shop, outbox: OutboxTester) -> None:
    """The error says what was claimed, how often that was sent, and shows what was."""
    with pytest.raises(AssertionError) as error:
        outbox.assert_sent(shop.add, args=[2, 2], queue="slow")
    assert str(error.value).splitlines() == [
        "shop.add with args=[2, 2] to the queue 'slow' was never sent.",
        "This was sent:",
        "  shop.add(1, 2) to celery",
        "  shop.add([1, 2], y=UUID('00000000-0000-0000-0000-000000000000')) to slow",
        "  paid({'id': 5}) to events (paid)",
    ]
    with pytest.raises(AssertionError, match=r"shop\.add was 2 times sent, not 1 time\."):
        outbox.assert_sent(shop.add, count=1)
    with pytest.raises(AssertionError, match=r"Nothing was to be sent\."):
        outbox.assert_nothing_sent()


def test_when_nothing_was_sent(shop: Shop, outbox: OutboxTester) -> None:
    """That holds, and a claim of more is told so."""
    outbox.assert_nothing_sent()

    with pytest.raises(AssertionError, match=r"shop\.add was never sent\.\nNothing was sent\."):
        outbox.assert_sent(shop.add)


def test_what_was_run_was_sent(shop: Shop, outbox: OutboxTester, outbox_target: Connection) -> None:
    """Also with a time of its own, which is shown."""
    with shop.app.outbox.using(outbox_target):
        shop.add.delay(1, 2)
        shop.add.apply_async((3, 4), eta=datetime(2040, 1, 1, tzinfo=UTC))
    outbox.run()
    outbox.assert_sent(shop.add, args=[1, 2], count=1)

    with pytest.raises(AssertionError, match=r"shop\.add\(3, 4\) to celery, not before 2040-01-01"):
        outbox.assert_sent(shop.total)


def test_a_queue_behind_an_exchange(
    shop: Shop, outbox: OutboxTester, outbox_target: Connection
) -> None:
    """Is known by its name, as the app's settings have it."""
    shop.app.conf.task_queues = [Queue("bills", Exchange("money", "topic"), routing_key="bill.new")]
    with shop.app.outbox.using(outbox_target):
        shop.add.apply_async((1, 1), queue="bills")

    outbox.assert_sent(shop.add, queue="bills")
    with pytest.raises(AssertionError, match=r"to money \(bill\.new\)"):
        outbox.assert_sent(shop.add, queue="celery")


def test_wrong_uses(shop: Shop, outbox: OutboxTester) -> None:
    """Are told apart from claims that do not hold."""
    with pytest.raises(ValueError, match=r"the app 'shop' has no task 'no\.such'"):
        outbox.fail_next("no.such")
    with pytest.raises(ValueError, match="needs a time zone"):
        outbox.at(datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="a task or its name is needed, not int"):
        outbox.assert_sent(1)
    with OutboxTest(shop.app) as nowhere, pytest.raises(NoTransaction):
        nowhere.run()


def test_django(django_database: str, trap: str) -> None:
    """In a TestCase: no target is named, atomic blocks count, nothing is left in the database."""
    shop = make_shop(trap)

    class OrderTest(OutboxTestMixin, TestCase):  # type: ignore[misc]  # Django ships no types
        outbox_app = shop.app

        def test_sends(self) -> None:
            with transaction.atomic():
                shop.add.delay(1, 2)
            with suppress(KeyError), transaction.atomic():
                shop.add.delay(0, 0)
                raise KeyError
            self.outbox.assert_sent(shop.add, args=[1, 2], count=1)
            (run,) = self.outbox.run()
            assert run.result == 3

        def test_retries(self) -> None:
            """A worker stores it apart, in a connection of its own; here it stays with the test."""

            @shop.app.task(name="flaky", shared=False, bind=True)
            def flaky(task: Any) -> None:
                if not task.request.retries:
                    with transaction.atomic():
                        raise task.retry(countdown=0)

            flaky.delay()
            assert [run.state for run in self.outbox.run()] == ["RETRY", "SUCCESS"]

        def test_sends_nothing(self) -> None:
            self.outbox.assert_nothing_sent()

        async def test_asynchronous(self) -> None:
            await sync_to_async(shop.add.delay)(3, 4)
            (run,) = await sync_to_async(self.outbox.run)()
            assert run.result == 7

    succeeds(OrderTest)
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox.message")
        assert cursor.fetchone() == (0,)


def test_unittest(shop: Shop, connection: Connection) -> None:
    """A test class names its app and its connection; nothing goes from test to test."""

    class OrderTest(OutboxTestMixin, unittest.TestCase):
        outbox_app = shop.app

        def outbox_target(self) -> Connection:
            connection.rollback()
            connection.execute("SELECT 1")
            return connection

        def test_one(self) -> None:
            with shop.app.outbox.using(connection):
                shop.add.delay(1, 2)
            self.outbox.fail_next(shop.total)
            assert [run.result for run in self.outbox.run()] == [3]

        def test_two(self) -> None:
            self.outbox.assert_nothing_sent()
            with shop.app.outbox.using(connection):
                shop.total.delay([1])
            assert [run.result for run in self.outbox.run()] == [1]

    succeeds(OrderTest)


def succeeds(case: type[unittest.TestCase]) -> None:
    """Run the tests of a class."""
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    assert (result.testsRun > 1, result.errors, result.failures) == (True, [], [])


def test_does_without_pytest(tmp_path: Path) -> None:
    """It is imported where there is none."""
    (tmp_path / "pytest.py").write_text("raise ImportError('no pytest here')")
    program = "import celery_outbox.testing as t, sys; assert 'pytest' not in sys.modules, t"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=60
    )

    assert ran.returncode == 0, ran.stderr.decode()


def test_an_app_without_an_outbox() -> None:
    """Is refused, with what to do."""
    with (
        pytest.raises(TypeError, match="make it an OutboxCelery"),
        OutboxTest(Celery("plain", set_as_current=False)),
    ):
        pass


def test_the_backend_of_the_app_is_left_alone(shop: Shop) -> None:
    """After the test it is what it was."""
    shop.app.conf["result_backend"] = "redis://127.0.0.1:1/0"
    with OutboxTest(shop.app):
        assert type(shop.app.backend).__name__ == "CacheBackend"

    assert re.match("Redis", type(shop.app.backend).__name__)
