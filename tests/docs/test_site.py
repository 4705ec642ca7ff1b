"""The documentation site: what it has, and that nobody who reads it is watched from elsewhere."""

import json
import os
import re
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from docs_site.errors import errors
from docs_site.links import deepened, relinked
from docs_site.nav import pages
from docs_site.settings import settings
from docs_site.stage import ROOT, stage
from docs_site.versions import build
from outbox_console.settings import VARIABLES as CONSOLE
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
    there = {str(page.relative_to(tmp_path)) for page in tmp_path.rglob("*.md")}

    assert there - set(named) == set(), "give these a place in tools/docs_site/nav.py"
    assert set(named) - there == set()
    assert len(named) == len(there)


def test_all_that_the_checkout_has_is_on_it(tmp_path: Path) -> None:
    """Every page of docs/ under its name, every error and setting on a page of its own."""
    stage(tmp_path, "")

    for page in (ROOT / "docs").rglob("*.md"):
        assert (tmp_path / page.relative_to(ROOT / "docs")).is_file()
    for error in errors(ROOT):
        assert error.text, f"{error.module}.{error.name} says nothing"
        assert (tmp_path / error.page).is_file()
    assert {setting.name for setting in TABLE} < set(settings(ROOT))
    assert {name for name, *_ in CONSOLE} < set(settings(ROOT))
    secrets = {"OUTBOX_CONSOLE_OIDC_CLIENT_SECRET", "OUTBOX_CONSOLE_KEY"}
    assert secrets | {"outbox_max_body", "OUTBOX_DATABASE_ALIAS"} < set(settings(ROOT))
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


class Shape(HTMLParser):
    """How many lists, items, blocks, tables and pictures the article of a page has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self._inside = "<article" not in html
        self.feed(html)

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        """Count it, if it is of the text."""
        self._inside = self._inside or tag == "article"
        if self._inside and tag in {"ol", "ul", "li", "pre", "table", "blockquote", "h2", "img"}:
            self.count[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        """Stop where the text ends."""
        self._inside = self._inside and tag != "article"


def _copied(site: Path) -> list[tuple[Path, Path]]:
    docs = ROOT / "docs"
    pages = [(p, site / p.relative_to(docs).with_suffix(".html")) for p in docs.rglob("*.md")]
    return [*pages, (ROOT / "README.md", site / "index.html")]


def _as_github_shows_it(page: Path, built: Path) -> bool:
    github = MarkdownIt("commonmark").enable("table").render(page.read_text())
    return Shape(github).count == Shape(built.read_text()).count


@pytest.mark.skipif(
    not (ROOT / ".docs/.made").exists(), reason="what builds the site is not here: make docs"
)
def test_it_builds_and_loads_nothing_from_elsewhere() -> None:
    """Strict about links and headings, no font, style or script remote, the same on GitHub."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SITE_")}
    made = subprocess.run(
        ["make", "docs"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    site = ROOT / "site"
    loaded = {
        (file.name, address)
        for file in site.rglob("*.*")
        if file.suffix in {".html", ".css"}
        for found in LOADED.findall(file.read_text())
        for address in found
        if address
    }
    api = re.sub(r"<[^>]+>", "", (site / "api/celery_outbox.html").read_text())

    assert loaded == set()
    assert [place for place in _copied(site) if not _as_github_shows_it(*place)] == []
    assert "using(target: T) -&gt; Using[T]" in api
    assert "Where transactions are joined: with app.outbox.using(connection)" in api
    assert "NoTransaction (celery-outbox)" in (site / "search.json").read_text()


def test_lists_are_as_github_has_them() -> None:
    """A block of code between numbered steps belongs to its step, and the numbers go on."""
    steps = "1. One:\n\n   ```\n   x\n   ```\n\n2. Two\n   goes on\n\nEnd\n   of it\n"

    assert deepened(steps) == (
        "1. One:\n\n    ```\n    x\n    ```\n\n2. Two\n    goes on\n\nEnd\n   of it\n"
    )


def test_what_is_loaded_is_found() -> None:
    """The look for remote addresses sees them, and leaves links alone."""
    loading = [
        '<script src="https://cdn.example/x.js">',
        '<link rel="stylesheet" href="//cdn.example/x.css">',
        "@import 'https://cdn.example/x.css'",
        "src: url(https://cdn.example/x.woff2)",
        '<img alt="" src="http://cdn.example/x.png">',
    ]

    assert all(map(LOADED.search, loading))
    assert not LOADED.search('<a href="https://example.org/">x</a><script src="assets/x.js">')
    assert not LOADED.search('<link rel="canonical" href="https://example.org/x.html">')


def test_each_release_has_its_site(tmp_path: Path) -> None:
    """The last of each X.Y, by its own Makefile; the start page leads to the newest."""
    checkout, target = tmp_path / "checkout", tmp_path / "site"
    checkout.mkdir()

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", str(checkout), *who, *arguments], check=True)

    git("init", "--quiet")
    for tag in ("v0.1.0", "v0.2.0", "v0.2.1", "v0.10.0"):
        rule = f"docs:\n\t@mkdir site; echo {tag} $$SITE_URL > site/index.html\n"
        (checkout / "Makefile").write_text("all:\n" if tag == "v0.1.0" else rule)
        git("add", ".")
        git("commit", "--quiet", "--message", tag)
        git("tag", tag)
    git("tag", "nightly")

    assert build(checkout, target, "https://docs.example/") == ["0.10", "0.2"]
    assert (target / "0.2/index.html").read_text() == "v0.2.1 https://docs.example/0.2/\n"
    assert "url=0.10/index.html" in (target / "index.html").read_text()
    listed = json.loads((target / "versions.json").read_text())
    assert [(each["version"], each["aliases"]) for each in listed] == [
        ("0.10", ["latest"]),
        ("0.2", []),
    ]
    assert sorted(each.name for each in target.iterdir()) == [
        "0.10", "0.2", "index.html", "versions.json"
    ]  # fmt: skip
