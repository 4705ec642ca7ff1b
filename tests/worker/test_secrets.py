"""No value of a message is in what the inbox logs or raises, whatever goes wrong."""

import logging
import traceback
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from celery_inbox import InboxError, idempotent
from celery_inbox.errors import BackToQueue
from tests.worker.ledger import Deliver, Ledger

SECRET = "tell-nobody"  # in every value of the messages
RAISE = "DO $$ BEGIN RAISE EXCEPTION '%', '{}' USING ERRCODE = '{}', DETAIL = '{}'; END $$"

#: What the server may say at the first attempt, or at each.
STATES = ["40001", "40P01", "57P01", "08006", "53300", "25P04", "2DI01"]


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that the inbox has logged, at any level."""
    caplog.set_level(logging.DEBUG, "celery_inbox")

    def heard() -> str:
        formatter = logging.Formatter("%(message)s")
        records = [record for record in caplog.records if record.name.startswith("celery_inbox")]
        return "\n".join(formatter.format(record) for record in records)

    return heard


def raise_in_sql(session: Any, state: str, secret: str) -> None:
    """An error of the server whose text, detail and parameters repeat the value."""
    session.execute(text("SELECT :value"), {"value": secret})
    session.execute(text(RAISE.format(secret, state, secret).replace(":", "\\:")))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    states=st.lists(st.sampled_from(STATES), min_size=1, max_size=3),
    always=st.booleans(),
    ending=st.sampled_from(["returns", "not JSON", "nan", "commits", "closes", "key"]),
)
def test_whatever_goes_wrong(
    app: Celery,
    ledger: Ledger,
    deliver: Deliver,
    heard: Callable[[], str],
    states: list[str],
    always: bool,
    ending: str,
) -> None:
    """Races, outages, refusals: the inbox' own words repeat nothing of the message."""
    engine = create_engine(ledger.dsn.replace("postgresql", "postgresql+psycopg", 1))
    left = list(states)

    @app.task(bind=True, name=str(uuid4()))
    @idempotent(lambda: Session(engine), key=lambda value: 7 if ending == "key" else value)  # type: ignore[arg-type,return-value]  # the mistake
    def charge(self: Any, session: Any, value: str) -> Any:
        if left:
            raise_in_sql(session, left[0] if always else left.pop(), value)
        if ending == "commits":
            session.commit()
        if ending == "closes":
            session.close()
        return {"not JSON": {value}, "nan": {value: float("nan")}}.get(ending, value)

    with pytest.MonkeyPatch.context() as patience:
        patience.setattr("celery_inbox.transient.PATIENCE", 0.05)
        patience.setattr("celery_inbox.transient.ATTEMPTS", 2)
        try:
            deliver(charge, SECRET)
        except (InboxError, BackToQueue, TypeError) as error:
            shown = "".join(traceback.format_exception(error))
        except Exception:  # the body's own error, which is Celery's to show
            shown = ""
        else:
            shown = ""
    engine.dispose()
    assert SECRET not in shown
    assert SECRET not in heard()


def test_an_id_used_twice_names_no_key(app: Celery, ledger: Ledger, deliver: Deliver) -> None:
    """Neither does a duplicate that is answered."""
    ledger.run(
        "INSERT INTO inbox.processed (message_id, task) VALUES (%s, 'refund')", f"charge:{SECRET}"
    )

    @app.task(bind=True, name="charge")
    @idempotent(ledger.connect, key=lambda value: value)
    def charge(self: Any, conn: Any, value: str) -> None:
        pytest.fail("ran")

    with pytest.raises(InboxError) as raised:
        deliver(charge, SECRET)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_another_drivers_error_shows_no_parameters(
    app: Celery, ledger: Ledger, deliver: Deliver
) -> None:
    """The result is a parameter of the inbox' last statement, which SQLAlchemy would repeat."""
    engine = create_engine(ledger.dsn.replace("postgresql", "postgresql+psycopg2", 1))
    ledger.run("ALTER TABLE inbox.processed ADD CHECK (result IS NULL)")

    @app.task(bind=True)
    @idempotent(lambda: Session(engine))
    def charge(self: Any, session: Any) -> str:
        return SECRET

    with pytest.raises(Exception, match="parameters hidden") as raised:
        deliver(charge)
    engine.dispose()
    assert SECRET not in str(raised.value).partition("DETAIL")[0]
