"""The documentation site as built: whole, searchable, and nobody who reads it is seen elsewhere."""

import fcntl
import functools
import os
import re
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from playwright.sync_api import BrowserContext, expect

from docs_site.stage import ROOT
from tests.console.chromium import chromium, context

__all__ = ["chromium", "context"]

#: What makes a browser load something: links that wait for a click are free to lead anywhere.
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next|edit))[^>]*?\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|@import\s+[\"']?(https?://[^\"'\s;]+)"
    r"|url\([\"']?((?:https?:)?//[^\"')]+)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the site, built; one test process builds at a time."""
    if not (ROOT / ".docs/.made").exists():
        pytest.skip("what builds the site is not here: make docs")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SITE_")}
    with (ROOT / ".docs/.made").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            ["make", "docs"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        return shutil.copytree(ROOT / "site", tmp_path_factory.mktemp("built") / "site")


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))
    ) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    """No font, style, script or picture."""
    loaded = {
        (file.name, address)
        for file in site.rglob("*.*")
        if file.suffix in {".html", ".css"}
        for found in LOADED.findall(file.read_text())
        for address in found
        if address
    }

    assert loaded == set()


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


def test_a_reader_finds_an_error_and_is_not_seen(address: str, context: BrowserContext) -> None:
    """In a Chromium: search has a page of its own for it, and asks nobody but this server."""
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.goto(f"{address}index.html")
    page.get_by_role("button", name="Search").first.click()
    page.get_by_placeholder("Search").first.fill("NoTransaction")
    page.locator("a[href*='/errors/celery-outbox-NoTransaction.html']:visible").first.click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("NoTransaction (celery-outbox)")
    assert [url for url in asked if not url.startswith((address, "blob:", "data:"))] == []


def test_signatures_are_typed_and_docstrings_read(site: Path) -> None:
    """On the pages of what may be imported."""
    api = re.sub(r"<[^>]+>", "", (site / "api/celery_outbox.html").read_text())

    assert "using(target: T) -&gt; Using[T]" in api
    assert "Where transactions are joined: with app.outbox.using(connection)" in api


def test_every_page_is_as_github_shows_it(site: Path) -> None:
    """As many lists, items, blocks, tables and pictures: none runs into another."""
    docs = ROOT / "docs"
    pages = [(p, site / p.relative_to(docs).with_suffix(".html")) for p in docs.rglob("*.md")]
    pages.append((ROOT / "README.md", site / "index.html"))

    assert [page for page, built in pages if not _as_github_shows_it(page, built)] == []


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


def _as_github_shows_it(page: Path, built: Path) -> bool:
    github = MarkdownIt("commonmark").enable("table").render(page.read_text())
    return Shape(github).count == Shape(built.read_text()).count
