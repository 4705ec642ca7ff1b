"""What the pages show is what the tests run: each Python block is part of an example."""

import re
import tomllib
from pathlib import Path

import psycopg
import pytest

from tests.examples.conftest import EXAMPLES
from tests.fixtures.rows import states

DOCS = EXAMPLES.parent / "docs"
PAGES = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "from-plain-celery.md"]
SQL_PAGE = DOCS / "how-to" / "sql.md"
#: Pages whose commands or projects other tests run.
WITHOUT_PYTHON = {"check", "django-tasks", "many-outboxes", "moving", "sql", "tracing"}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_is_executed(page: Path) -> None:
    """Every block stands, word for word, in an example that a test runs."""
    sources = [path.read_text() for path in EXAMPLES.rglob("*.py")]
    blocks = BLOCK.findall(page.read_text())

    assert bool(blocks) == (page.stem not in WITHOUT_PYTHON)
    for block in blocks:
        assert any(block in source for source in sources), block


def test_sql_runs(database: str) -> None:
    """Every statement of the page, in its order; then what is said of it is so."""
    with psycopg.connect(database) as connection:
        for block in re.findall(r"^```sql\n(.*?)^```$", SQL_PAGE.read_text(), re.M | re.S):
            connection.execute(block.encode())
        cancelled = connection.execute("SELECT outbox.cancel('invoice-42')").fetchone()

    assert cancelled == (False,)  # by the page, before
    assert states(database) == {"pending": 3, "scheduled": 0, "sent": 0, "dead": 0}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_to_be_installed_exists(page: Path) -> None:
    """Our distributions and their extras are called what the pages call them."""
    ours = {
        found["project"]["name"]: found["project"].get("optional-dependencies", {})
        for path in EXAMPLES.parent.glob("*/pyproject.toml")
        if (found := tomllib.loads(path.read_text()))
    }
    for line in re.findall(r"^\$ pip install (.*)$", page.read_text(), re.MULTILINE):
        for name, extra in re.findall(r"((?:celery|outbox)-[a-z]+)(?:\[(\w+)\])?", line):
            assert name in ours
            assert not extra or extra in ours[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository finds it."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
