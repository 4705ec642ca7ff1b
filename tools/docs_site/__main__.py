"""Stages the site in .site/ for Zensical, which builds it in site/: `make docs`.

SITE_URL says where it will be published, and SITE_REPOSITORY where the repository is looked at;
without the latter, pages name files that are no pages without linking them. SITE_VERSION and
SITE_TAG are set where it is one of several (docs_site.versions).
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from docs_site import api
from docs_site.nav import Entry
from docs_site.stage import ROOT, stage

STAGE: Final = ROOT / ".site"
STYLE: Final = "site.css"


def main() -> None:
    """Write the pages and the configuration, which is JSON, and so YAML."""
    version = os.environ.get("SITE_VERSION", "")
    repository = os.environ.get("SITE_REPOSITORY", "")
    order = stage(STAGE / "docs", files_at())
    shutil.copyfile(Path(__file__).with_name(STYLE), STAGE / "docs" / STYLE)
    written = configuration(order, os.environ.get("SITE_URL", ""), repository, version)
    (STAGE / "mkdocs.yml").write_text(json.dumps(written, indent=2))


def files_at() -> str:
    """Where the repository shows the files of this commit, or nothing."""
    repository = os.environ.get("SITE_REPOSITORY", "")
    return f"{repository}/blob/{os.environ.get('SITE_TAG', 'main')}" if repository else ""


def configuration(order: list[Entry], url: str, repository: str, version: str) -> dict[str, Any]:
    """What Zensical is told: nothing is fetched from elsewhere, and a broken link is an error."""
    told: dict[str, Any] = {
        "site_name": "celery-outbox",
        "site_description": "The transactional outbox for Celery",
        "docs_dir": "docs",
        "site_dir": "site",
        "use_directory_urls": False,
        "nav": order,
        "theme": _theme(),
        "plugins": [
            "search",  # not "offline": that would load a script from a CDN
            {"mkdocstrings": {"handlers": {"python": _python()}}},
        ],
        "markdown_extensions": _extensions(),
        "extra_css": [STYLE],
        "validation": {"links": {"not_found": "warn", "anchors": "warn"}},
        "extra": {"generator": False},
    }
    if url:
        told["site_url"] = url
    if repository:  # not as repo_url: each reader's browser would ask GitHub for its stars
        link = {"icon": "lucide/git-branch", "link": repository, "name": "Source"}
        told["extra"]["social"] = [link]
    if version:  # its menu reads ../versions.json, as mike writes it
        told["extra"]["version"] = {"provider": "mike"}
    return told


def _theme() -> dict[str, Any]:
    bright, dark = "(prefers-color-scheme: light)", "(prefers-color-scheme: dark)"
    return {
        "variant": "modern",
        "font": False,
        "features": [
            "navigation.tabs",
            "navigation.indexes",
            "navigation.footer",
            "navigation.top",
            "content.code.copy",
            "search.highlight",
            "toc.follow",
        ],
        "palette": [
            {
                "media": bright,
                "scheme": "default",
                "toggle": {"icon": "lucide/sun", "name": "Dark"},
            },
            {
                "media": dark,
                "scheme": "slate",
                "toggle": {"icon": "lucide/moon", "name": "Light"},
            },
        ],
    }


def _python() -> dict[str, Any]:
    """Docstrings are plain Markdown, signatures carry their types."""
    return {
        "paths": [os.path.relpath(ROOT / path, STAGE) for path in api.PATHS],
        "options": {
            "docstring_style": None,
            "heading_level": 2,
            "members_order": "source",
            "separate_signature": True,
            "line_length": 80,
            "show_bases": False,
            "show_root_toc_entry": False,
            "show_signature_annotations": True,
            "show_source": False,
            "signature_crossrefs": True,
        },
    }


def _extensions() -> list[Any]:
    """GitHub's Markdown, as far as our pages use it, its names of headings included."""
    github = {"object": "pymdownx.slugs.slugify", "kwds": {"case": "lower"}}
    return [
        "admonition",
        "attr_list",
        "md_in_html",
        "pymdownx.highlight",
        "pymdownx.inlinehilite",
        "pymdownx.superfences",
        "pymdownx.tilde",
        "tables",
        {"toc": {"permalink": True, "slugify": github}},
    ]


if __name__ == "__main__":
    main()
