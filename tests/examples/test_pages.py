"""What the pages show is what the tests run: each Python block is part of an example."""

import re
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES

DOCS = EXAMPLES.parent / "docs"
PAGES = [*sorted((DOCS / "how-to").glob("*.md")), DOCS / "from-plain-celery.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_is_executed(page: Path) -> None:
    """Every block stands, word for word, in an example that a test runs."""
    sources = [path.read_text() for path in EXAMPLES.rglob("*.py")]
    blocks = BLOCK.findall(page.read_text())

    assert blocks
    for block in blocks:
        assert any(block in source for source in sources), block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository finds it."""
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
