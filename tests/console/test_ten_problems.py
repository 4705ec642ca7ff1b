"""Ten problems, most of the doctor's tests, and the clicks of docs/console.md that lead to them.

A pointer in a Chromium goes the ways of the table: it begins at the overview, and every page after
that is reached by a click on what the page before shows. The page at the end names the problem and
what to do; where that is something to press, it is pressed. How long people take is not known.
"""

import re
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
    """What somebody complains of, how it came about, the clicks, and what is read at their end.

    `glance` is what the overview says before any click, and `way_out` what to do; where that is to
    be pressed, what was found has to be `chosen` first or not, and `leads_to` is what comes then.
    """

    complaint: str
    make: Callable[[str, ExitStack], object]
    clicks: tuple[str, ...]
    found: str
    way_out: str
    glance: str = ""
    chosen: str = ""
    leads_to: str = ""


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
    run(
        url,
        "UPDATE outbox.receipt SET sent_at = sent_at - interval '10 minutes'",
        "SELECT inbox.note_receipts('celery@a', '{order-4711}', '{shop.bill}', '{lost}', '{NULL}',"
        " '{0}', '{NULL}', '{NULL}')",
    )


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
        glance="Nothing was confirmed for 10 min",
    ),
    Problem(
        "Payments are not booked; all else works.",
        refused, ("Failures",), "NO_ROUTE", "Look at them", leads_to="payments",
    ),
    Problem(
        "Order 4711 has no invoice.",
        one, ("/order-4711",), "message size 20000000 is larger", "Retry…",
        leads_to="Retry 1 dead message?",
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
        lost, ("Messages", "missing"), "lost", "Replay…", chosen="Choose shop.bill order-4711",
        leads_to="Replay 1 missing message?",
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
    pages: list[str] = []
    tab.goto(asked(problem.make))
    tab.on("framenavigated", lambda frame: pages.append(frame.url))
    main = tab.locator("main")
    expect(main).to_contain_text(problem.glance)

    for click in problem.clicks:
        if click.startswith("/"):
            field = tab.get_by_role("searchbox", name="Find a message by id")
            field.click()
            tab.keyboard.type(click[1:])
            tab.keyboard.press("Enter")
        elif click.startswith("Examine"):
            tab.get_by_role("button", name=click).click()
        else:
            # By what the page says of itself: the same word may stand elsewhere as well.
            links = tab.get_by_role("navigation").get_by_role("link")
            links.filter(has_text=click).click()
    expect(main).to_contain_text(problem.found)
    expect(main).to_contain_text(problem.way_out)

    assert len(pages) >= len(problem.clicks)
    if problem.chosen:
        tab.get_by_role("checkbox", name=problem.chosen).click()
    if problem.leads_to:
        tab.get_by_text(problem.way_out, exact=True).click()
        expect(main).to_contain_text(problem.leads_to)


def test_the_table_has_these_clicks() -> None:
    """Each complaint, with what is clicked in that order, and no complaint that is not tried."""
    rows = re.findall(r"(?m)^\| ([^|]+\.) \| ([^|]*) \|", _section(PAGE.read_text()))
    written = {complaint: re.findall(r"\*([^*]+)\*", clicks) for complaint, clicks in rows}

    assert written == {each.complaint: _names(each) for each in PROBLEMS}


def _names(problem: Problem) -> list[str]:
    glance = ["Overview"] if problem.glance or problem.make is stopped else []
    return glance + [click for click in problem.clicks if not click.startswith("/")]


def _section(page: str) -> str:
    return page.partition("\n## Ten problems")[2].partition("\n## ")[0]
