"""The documentation site before it is built: what it has, in which order, and where links lead."""

import json
import subprocess
from pathlib import Path

import pytest

from docs_site.__main__ import files_at
from docs_site.errors import errors
from docs_site.links import deepened, relinked
from docs_site.nav import pages
from docs_site.settings import settings
from docs_site.stage import ROOT, stage
from docs_site.versions import build
from outbox_console.settings import VARIABLES as CONSOLE
from outbox_relay.configuration import TABLE


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


def test_lists_are_as_github_has_them() -> None:
    """A block of code between numbered steps belongs to its step, and the numbers go on."""
    steps = "1. One:\n\n   ```\n   x\n   ```\n\n2. Two\n   goes on\n\nEnd\n   of it\n"

    assert deepened(steps) == (
        "1. One:\n\n    ```\n    x\n    ```\n\n2. Two\n    goes on\n\nEnd\n   of it\n"
    )


def test_the_files_of_a_release_are_those_of_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the branch, which goes on."""
    monkeypatch.setenv("SITE_REPOSITORY", "https://r.example/outbox")
    assert files_at() == "https://r.example/outbox/blob/main"
    monkeypatch.setenv("SITE_TAG", "v0.2.1")
    assert files_at() == "https://r.example/outbox/blob/v0.2.1"


def test_each_release_has_its_site(tmp_path: Path) -> None:
    """The last of each X.Y, by its own Makefile; the start page leads to the newest."""
    checkout, target = tmp_path / "checkout", tmp_path / "site"
    checkout.mkdir()

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
        subprocess.run(["git", "-C", str(checkout), *who, *arguments], check=True, timeout=60)

    git("init", "--quiet")
    for tag in ("v0.1.0", "v0.2.0", "v0.2.1", "v0.10.0"):
        rule = f"# {tag}\ndocs:\n\t@mkdir site; echo $$SITE_TAG $$SITE_URL > site/index.html\n"
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
