"""Puts the pages of the site together in a folder: copies with their links led right, made ones.

Nothing of it is committed: the checkout's pages stay as GitHub shows them.
"""

import re
import shutil
from pathlib import Path
from typing import Final

from docs_site import api, errors, settings
from docs_site.links import deepened, mentions, relinked
from docs_site.nav import Entry, navigation

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
#: Pages outside docs/, and what they are on the site.
OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "producer/README.md": "packages/celery-outbox.md",
    "relay/README.md": "packages/outbox-relay.md",
    "worker/README.md": "packages/celery-inbox.md",
    "migrations/README.md": "packages/outbox-migrations.md",
    "console/README.md": "packages/outbox-console.md",
}
#: What explains nothing that another page does not: pages made from code do not name them.
_NEVER_NAMED: Final = ("index.md", "changes.md", "contributing.md")


def stage(folder: Path, blob: str) -> list[Entry]:
    """Write all pages below the folder, which is emptied first; return their order.

    `blob` is the address under which the repository shows its files, or empty.
    """
    shutil.rmtree(folder, ignore_errors=True)
    places = {ROOT / source: place for source, place in OUTSIDE.items()}
    places |= {file: str(file.relative_to(DOCS)) for file in sorted(DOCS.rglob("*.*"))}
    decisions = sorted(place for place in places.values() if place.startswith("decisions/"))
    places[DOCS / "decisions"] = "decisions/index.md"
    written: dict[str, str] = {}
    for source, place in places.items():
        if source.suffix == ".md":
            written[place] = deepened(relinked(source.read_text(), source, places, ROOT, blob))
        elif source.is_file():
            _copy(source, folder / place)
    made = _made(written)
    made["decisions/index.md"] = "# Decisions\n\n" + "".join(
        f"* [{title(written[page])}]({Path(page).name})\n" for page in decisions
    )
    for place, text in (written | made).items():
        _write(folder / place, text)
    return navigation(
        packages=[place for place in OUTSIDE.values() if place.startswith("packages/")],
        api=[page for page in made if page.startswith("api/")],
        settings=[page for page in made if page.startswith("settings/")],
        errors=errors.order(errors.errors(ROOT)),
        decisions=["decisions/index.md", *decisions],
    )


def title(text: str) -> str:
    """The first heading of a page."""
    found = re.search(r"^# (.+)$", text, re.MULTILINE)
    return found[1].replace("`", "") if found else ""


def _made(written: dict[str, str]) -> dict[str, str]:
    """The pages that code is the source of; each names the others that speak of its subject."""
    prose = {page: text for page, text in written.items() if page not in _NEVER_NAMED}
    raised = errors.errors(ROOT)
    read = settings.settings(ROOT)
    exported = {error.name: error.page for error in reversed(raised)}
    pages = {"settings/index.md": settings.index(read)}
    for name, said in read.items():
        pages[settings.page_of(name)] = (
            settings.body(name, said) + "\n" + mentions(name, prose, title)
        )
    pages["errors/index.md"] = errors.index(raised)
    for error in raised:
        pages[error.page] = errors.body(error) + "\n" + mentions(error.name, prose, title)
    pages["api/index.md"] = api.index()
    for module in api.MODULES:
        own = {n: page for n, page in exported.items() if n in module.names}
        pages[module.page] = api.body(module, own)
    return pages


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
