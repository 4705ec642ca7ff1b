"""What a task carries is in its row and nowhere else: errors name tasks and constraints."""

import logging
import traceback
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from celery_outbox import OutboxError, UnusableTarget
from tests.producer.conftest import Shop, make_shop

CANARY = "canary-7c1d"


def by_sqlalchemy(driver: str) -> Callable[[str], Any]:
    """A Session with that driver."""
    return lambda url: Session(create_engine(url.replace("postgresql", f"postgresql+{driver}", 1)))


TARGETS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.connect,
    "psycopg2": psycopg2.connect,
    "SQLAlchemy and psycopg": by_sqlalchemy("psycopg"),
    "SQLAlchemy and psycopg2": by_sqlalchemy("psycopg2"),
}
REFUSALS = {
    "a constraint": "ALTER TABLE outbox.message ADD CHECK (octet_length(body) < 5)",
    "a missing right": "REVOKE ALL ON outbox.message FROM guest",
    "another version": "ALTER TABLE outbox.message RENAME body TO content",
}


@pytest.mark.parametrize("open_target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_error_does_not_repeat_the_payload(
    trap: str,
    database: str,
    refusal: str,
    open_target: Callable[[str], Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither its text, nor those of its causes, nor anything logged on the way."""
    caplog.set_level(logging.DEBUG)
    with psycopg.connect(database) as admin:
        admin.execute("DO 'BEGIN CREATE ROLE guest; EXCEPTION WHEN duplicate_object THEN END'")
        admin.execute("GRANT USAGE ON SCHEMA outbox TO guest")
        admin.execute(REFUSALS[refusal].encode())
    url = f"{database}?options=-crole%3Dguest" if refusal == "a missing right" else database
    shop: Shop = make_shop(trap, task_serializer="json")
    target = open_target(url)

    def send() -> None:
        with shop.app.outbox.transaction(target):
            shop.add.apply_async((CANARY, 0), headers={"x": CANARY})

    with pytest.raises(OutboxError) as refused:
        send()
    target.close()

    said = "".join(traceback.format_exception(refused.value)) + caplog.text
    for form in (CANARY, CANARY.encode().hex()):
        assert form not in said


@pytest.mark.parametrize(
    "target",
    [
        f"postgresql://user:{CANARY}@host/db",
        f"host=h password={CANARY}",
        {"password": CANARY},
        [CANARY],
    ],
)
def test_an_error_does_not_repeat_what_may_be_a_password(
    target: Any, request: pytest.FixtureRequest
) -> None:
    """What is no connection is named by its kind; so it is where Django looks for an alias."""
    shop = make_shop(None)
    for _ in range(2):
        with pytest.raises(UnusableTarget) as refused:
            shop.app.outbox.using(target)
        assert CANARY not in "".join(traceback.format_exception(refused.value))
        request.getfixturevalue("django_database")
