"""Builds the site of every release, side by side: `make docs-versions`, which publishes nothing.

The last release of each X.Y is built by its own commit, with its own tools, in a folder X.Y beside
`versions.json`, which the pages' menu of versions reads; the start page leads to the newest.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from docs_site.stage import ROOT

#: Seconds for the site of one release, with what has to be fetched to build it.
_DEADLINE: Final = 900
_RELEASE: Final = re.compile(r"v(\d+)\.(\d+)\.(\d+)")
_START: Final = """<!doctype html>
<meta charset="utf-8">
<title>celery-outbox</title>
<meta http-equiv="refresh" content="0; url={newest}/index.html">
<a href="{newest}/index.html">celery-outbox {newest}</a>
"""


def released(tags: Sequence[str]) -> dict[str, str]:
    """The tag of the last release of each X.Y, the newest first; other tags are none."""
    numbers = sorted(tuple(map(int, m.groups())) for m in map(_RELEASE.fullmatch, tags) if m)
    last = {f"{major}.{minor}": f"v{major}.{minor}.{patch}" for major, minor, patch in numbers}
    return dict(reversed(last.items()))


def build(checkout: Path, target: Path, url: str = "") -> list[str]:
    """Build each into `target`, which is emptied first; return them, the newest first."""
    built = []
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for version, tag in released(_git(checkout, "tag", "--list").split()).items():
        place = target / f".{version}"
        _git(checkout, "worktree", "add", "--detach", str(place), tag)
        try:
            if not re.search(r"(?m)^docs:", (place / "Makefile").read_text()):
                continue  # from before there was a site
            _make(place, version, tag, f"{url.rstrip('/')}/{version}/" if url else "")
            shutil.move(place / "site", target / version)
            built.append(version)
        finally:
            _git(checkout, "worktree", "remove", "--force", str(place))
    _write_start(target, built)
    return built


def _make(place: Path, version: str, tag: str, url: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    environment |= {"SITE_VERSION": version, "SITE_TAG": tag, "SITE_URL": url}
    subprocess.run(["make", "docs"], cwd=place, env=environment, check=True, timeout=_DEADLINE)


def _write_start(target: Path, built: Sequence[str]) -> None:
    listed = [{"version": each, "title": each, "aliases": []} for each in built]
    if listed:
        listed[0]["aliases"] = ["latest"]
        (target / "index.html").write_text(_START.format(newest=built[0]))
    (target / "versions.json").write_text(json.dumps(listed, indent=2))


def _git(checkout: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
    ).stdout


if __name__ == "__main__":
    if not build(ROOT, ROOT / "site", os.environ.get("SITE_URL", "")):
        sys.exit("No release has a site: tag one as vX.Y.Z (docs/releasing.md), or run make docs.")
