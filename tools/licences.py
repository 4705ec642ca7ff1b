"""Writes docs/licences.md: what our packages bring along, by the lock file, and its licence.

The lock file says what, the installed packages say under which licence: `make licences`.
"""

import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/licences.md"
OURS: Final = ("outbox-relay", "outbox-migrations", "celery-outbox", "celery-inbox")
#: Extras that bring along what none of them does by itself.
EXTRAS: Final = (("outbox-relay", "otel"),)

#: Locked, but not installed on every platform and Python.
ELSEWHERE: Final = {"async-timeout": "Apache-2.0", "tzdata": "Apache-2.0"}
#: What older packages call the licences that SPDX has names for.
SPDX: Final = {
    "MIT License": "MIT",
    "The MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "New BSD": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
}

_HEAD: Final = """\
# Licences

Ours is MIT. This is what our packages bring along, with the extra `otel` of the relay and
no other, and under which licence.
`make licences` writes the table from the lock file and the packages themselves; a test keeps it
current, and fails on a licence that nobody has decided about yet.

psycopg is under the LGPL: used as a library, as here, it asks nothing of your code.
`psycopg-binary` contains libpq (PostgreSQL licence) and OpenSSL (Apache-2.0).

| package | licence | comes with |
|---|---|---|
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(as_page())


def as_page() -> str:
    """The page as it should be."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    locked = {package["name"]: package for package in packages}
    needed = {ours: needs(ours, locked) for ours in OURS}
    for ours, extra in EXTRAS:
        needed[f"{ours}[{extra}]"] = needs(ours, locked, extra) - needed[ours]
    rows = [
        f"| {name} | {licence(name)} | {', '.join(o for o in needed if name in needed[o])} |\n"
        for name in sorted(set().union(*needed.values()))
    ]
    return _HEAD + "".join(rows)


def needs(name: str, locked: Mapping[str, Any], extra: str = "") -> set[str]:
    """Everything that a package needs, or one of its extras, and what that needs."""
    found: set[tuple[str, str]] = set()
    waiting = list(_directly(locked[name], extra))
    while waiting:
        package, extra = pair = waiting.pop()
        if pair not in found:
            found.add(pair)
            waiting += _directly(locked[package], extra)
    return {package for package, _ in found}


def _directly(package: Mapping[str, Any], extra: str) -> Iterable[tuple[str, str]]:
    """What it asks for by itself, or for one of its extras, as package and extra."""
    extras = package.get("optional-dependencies", {})
    for needed in extras.get(extra, ()) if extra else package.get("dependencies", ()):
        yield needed["name"], ""
        yield from ((needed["name"], each) for each in needed.get("extra", ()))


def licence(name: str) -> str:
    """What a package says of itself."""
    if name in ELSEWHERE:
        return ELSEWHERE[name]
    try:
        return _declared(distribution(name))
    except PackageNotFoundError:
        return "unknown"


def _declared(package: Distribution) -> str:
    fields = package.metadata
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in fields.get_all("Classifier") or ()
        if each.startswith("License :: OSI Approved :: ")
    ]
    declared = [fields[key] for key in ("License-Expression", "License") if fields[key]]
    short = [text for text in (*declared, *classifiers) if len(text) < 40]
    return SPDX.get(short[0], short[0]) if short else "unknown"


if __name__ == "__main__":
    main()
