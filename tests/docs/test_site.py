"""The documentation site: what it has, and that nobody who reads it is watched from elsewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from docs_site.errors import errors
from docs_site.links import relinked
from docs_site.nav import pages
from docs_site.settings import settings
from docs_site.stage import ROOT, stage
from outbox_relay.configuration import TABLE

#: What makes a browser load something: links that wait for a click are free to lead anywhere.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next|edit))[^>]*?\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|@import\s+[\"']?(https?://[^\"'\s;]+)"
    r"|url\([\"']?((?:https?:)?//[^\"')]+)"
)


def test_every_page_has_a_place(tmp_path: Path) -> None:
    """The order names each page once, and none that is not there."""
    named = list(pages(stage(tmp_path, "")))

    assert sorted(named) == sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.md"))


def test_all_that_the_checkout_has_is_on_it(tmp_path: Path) -> None:
    """Every page of docs/ under its name, every error and setting on a page of its own."""
    stage(tmp_path, "")

    for page in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / page.relative_to(ROOT / "docs")).is_file()
    for error in errors(ROOT):
        assert error.text, f"{error.module}.{error.name} says nothing"
        assert (tmp_path / error.page).is_file()
    assert {setting.name for setting in TABLE} < set(settings(ROOT))
    assert {"outbox_max_body", "OUTBOX_DATABASE_ALIAS", "OUTBOX_CONSOLE_MASK"} < set(settings(ROOT))
    for name in settings(ROOT):
        assert (tmp_path / f"settings/{name}.md").is_file()


def test_a_page_of_an_error_leads_on(tmp_path: Path) -> None:
    """Somebody who met NoTransaction reads what it says, the way out, and where more of it is."""
    stage(tmp_path, "")
    page = (tmp_path / "errors/celery-outbox-NoTransaction.md").read_text()

    assert "<em>task</em> was sent with no transaction to join." in page
    assert "set OUTBOX_DATABASE_URL" in page
    assert "](../rollout.md)" in page


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[a](../README.md#use-it)", "[a](../index.md#use-it)"),
        ("[a](order.md)", "[a](order.md)"),
        ("[a](../../worker/x.py)", "a"),
        ("[`a[b]`](https://x.org/)", "[`a[b]`](https://x.org/)"),
        ("[a](#here)", "[a](#here)"),
        ("```\n[a](../../worker/x.py)\n```", "```\n[a](../../worker/x.py)\n```"),
    ],
)
def test_a_link_leads_to_the_same(link: str, shown: str) -> None:
    """On the site pages have other places; a file without a page stays as text."""
    source = ROOT / "docs/how-to/events.md"
    places = {
        source: "how-to/events.md",
        ROOT / "docs/README.md": "index.md",
        ROOT / "docs/how-to/order.md": "how-to/order.md",
    }

    assert relinked(link, source, places, ROOT, "") == shown


def test_a_file_without_a_page_is_in_the_repository() -> None:
    """Where its address is known."""
    source = ROOT / "docs/faults.md"
    shown = relinked("[a](../tests/x.py#L1)", source, {source: "faults.md"}, ROOT, "https://r/blob")

    assert shown == "[a](https://r/blob/tests/x.py#L1)"


@pytest.fixture(scope="module")
def site() -> Path:
    """The built site. Skipped where `make docs` has never fetched its builder."""
    if not (ROOT / ".docs/.made").exists():
        pytest.skip("the site's builder is not here: `make docs` fetches it")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SITE_")}
    made = subprocess.run(
        ["make", "docs"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return ROOT / "site"


def test_it_builds_and_loads_nothing_from_elsewhere(site: Path) -> None:
    """The build is strict about links and headings; no font, style, script or picture is remote."""
    assert (site / "search.json").stat().st_size > 100_000
    loaded = {
        (file.name, address)
        for file in site.rglob("*.*")
        if file.suffix in {".html", ".css"}
        for found in LOADED.findall(file.read_text())
        for address in found
        if address
    }

    assert loaded == set()


def test_signatures_are_on_the_pages_of_the_api(site: Path) -> None:
    """With their types; docstrings are read as Markdown."""
    page = re.sub(r"<[^>]+>", "", (site / "api/celery_outbox.html").read_text())

    assert "using(target: T) -&gt; Using[T]" in page
    assert "Where transactions are joined: with app.outbox.using(connection)" in page
