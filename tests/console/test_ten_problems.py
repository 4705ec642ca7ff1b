"""Ten problems, most of the doctor's tests, found in a Chromium by the clicks of docs/console.md.

Whoever looks knows the complaint and nothing else; the clicks are those of a person who reads what
the page says. The page that ends the search names the problem, and what to do.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Page, expect

from outbox_console import create_app
from outbox_console.settings import DOCTOR
from outbox_migrations import grant
from tests.console.chromium import chromium, context, tab
from tests.console.conftest import Browser, bury, confirm
from tests.console.test_crew import relay
from tests.fixtures.rows import commit_rows

__all__ = ["chromium", "context", "tab"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # a browser on a busy machine
PAGE = Path(__file__).resolve().parents[2] / "docs/console.md"


@dataclass(frozen=True)
class Problem:
    """What somebody complains of, how it came about, the clicks, and what is read at their end."""

    complaint: str
    make: Callable[[str, ExitStack], object]
    clicks: tuple[str, ...]
    found: str
    way_out: str


def run(url: str, *statements: str) -> None:
    """Run some statements."""
    with psycopg.connect(url) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def stopped(url: str, _: ExitStack) -> None:
    """No relay runs."""
    commit_rows(url, 3)


def old(url: str, stack: ExitStack) -> None:
    """A relay is there, and has got nothing through for ten minutes."""
    stack.enter_context(relay(url))
    run(
        url,
        "ALTER TABLE outbox.message ALTER created_at SET DEFAULT now() - interval '10 minutes'",
    )
    commit_rows(url, 3)


def refused(url: str, stack: ExitStack) -> None:
    """An exchange is gone: what goes there is dead, and the rest flows."""
    stack.enter_context(relay(url))
    bury(url, commit_rows(url, 5, exchange="payments", routing_key="eu"))


def one(url: str, stack: ExitStack) -> None:
    """One message is too large."""
    stack.enter_context(relay(url))
    bury(url, commit_rows(url, message_ids=["order-4711"]), "message size 20000000 is larger")


def untaken(url: str, stack: ExitStack) -> None:
    """No worker takes from the queue `mail`."""
    stack.enter_context(relay(url))
    _announce(url, '{"queues": ["celery"], "tasks": ["shop.bill"]}')
    confirm(url, commit_rows(url, 2, routing_key="mail"))


def unknown(url: str, stack: ExitStack) -> None:
    """The workers of the queue are older than the task."""
    stack.enter_context(relay(url))
    _announce(url, '{"queues": ["celery"], "tasks": ["shop.bill"]}')
    commit_rows(url, 2, task="shop.brand_new", headers='{"task": "shop.brand_new"}')


def untriggered(url: str, stack: ExitStack) -> None:
    """Somebody has switched the triggers off, for a restore."""
    stack.enter_context(relay(url))
    run(url, "ALTER TABLE outbox.message DISABLE TRIGGER make_work")


def divided(url: str, stack: ExitStack) -> None:
    """A relay of an old deployment publishes elsewhere."""
    stack.enter_context(relay(url))
    stack.enter_context(relay(url, broker="zzzzzz"))


def lost(url: str, stack: ExitStack) -> None:
    """A worker was killed while it had the message."""
    stack.enter_context(relay(url))
    run(
        url,
        "SELECT inbox.watch('{shop.bill}')",
        "UPDATE inbox.watched SET since = now() - interval '1 hour'",
    )
    confirm(url, commit_rows(url, message_ids=["order-4711"]))
    run(url, "UPDATE outbox.receipt SET sent_at = sent_at - interval '10 minutes'")


def outdated(url: str, _: ExitStack) -> None:
    """The console is newer than the schema."""
    run(url, "ALTER VIEW outbox.stats RENAME COLUMN expired TO gone")


def _announce(url: str, said: str) -> None:
    run(url, f"SELECT inbox.announce('celery@a', '{said}', 3600)")


PROBLEMS = [
    Problem(
        "Since the deployment no mail goes out at all.",
        stopped, (), "No relay is connected, and 3 messages wait", "outbox-relay run",
    ),
    Problem(
        "Everything hangs, and nobody has changed anything.",
        old, ("Doctor", "Examine now"), "Connection refused", "nothing listens there",
    ),
    Problem(
        "Payments are not booked; all else works.",
        refused, ("Failures",), "NO_ROUTE", "Look at them",
    ),
    Problem(
        "Order 4711 has no invoice.",
        one, ("/order-4711",), "message size 20000000 is larger", "Retry",
    ),
    Problem(
        "The new newsletter reaches nobody.",
        untaken, ("Routes",), "none known", "mail",
    ),
    Problem(
        "The new feature does nothing.",
        unknown, ("Doctor", "Examine now"), "none knows", "deploy workers of that queue",
    ),
    Problem(
        "Since the restore nothing new is sent.",
        untriggered, ("Doctor", "Examine now"), "make_work", "ENABLE ALWAYS TRIGGER",
    ),
    Problem(
        "Half of the tasks run, half do not.",
        divided, ("Workers",), "They do not publish to the same place", "one OUTBOX_BROKER_URL",
    ),
    Problem(
        "Order 4711 was sent, and was never worked on.",
        lost, ("Messages", "missing"), "order-4711", "Replay",
    ),
    Problem(
        "The console has shown nothing since this morning.",
        outdated, (), "too old for this console", "outbox-migrate up",
    ),
]  # fmt: skip


@pytest.fixture
def asked(
    database: str, visit: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[str, ExitStack], object]], str]]:
    """Make a problem; the address of the console that somebody opens then."""
    monkeypatch.setenv("OUTBOX_BROKER_URL", "amqp://127.0.0.1:1//")
    with ExitStack() as stack:

        def ask(make: Callable[[str, ExitStack], object]) -> str:
            grant(database)
            make(database, stack)
            app = create_app(database_url=database, role="operator", doctor=DOCTOR)
            return str(visit(app).base_url)

        yield ask


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.make.__name__)
def test_it_is_found(
    asked: Callable[[Callable[[str, ExitStack], object]], str], tab: Page, problem: Problem
) -> None:
    """By the clicks that the page of documentation has."""
    tab.goto(asked(problem.make))
    for click in problem.clicks:
        if click.startswith("/"):
            tab.keyboard.press("/")
            tab.keyboard.type(click[1:])
            tab.keyboard.press("Enter")
            continue
        if click.startswith("Examine"):
            tab.get_by_role("button", name=click).click()
        else:
            tab.get_by_role("link", name=click, exact=click == "missing").first.click()

    expect(tab.locator("main")).to_contain_text(problem.found)
    expect(tab.locator("main")).to_contain_text(problem.way_out)


def test_each_is_written_up() -> None:
    """With the complaint, and with the clicks."""
    page = PAGE.read_text()

    assert [each.complaint for each in PROBLEMS if each.complaint not in page] == []
