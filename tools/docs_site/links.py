"""How the text of a page is changed for the site: its links, and the depth of its lists.

A page has another place there than in the checkout; what has no page is looked at in the
repository, where its address is known, and is plain text otherwise.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

#: A block of code, or else a link or picture: `[`, the text (brackets in pairs), `](`, the target.
_LINK: Final = re.compile(
    r"(?P<code>^ *```.*?^ *```$)"
    r"|\[(?P<text>(?:[^\[\]]|!?\[[^\]]*\](?:\([^)\s]+\))?)*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
_ELSEWHERE: Final = ("http:", "https:", "mailto:", "#")


def relinked(text: str, source: Path, places: Mapping[Path, str], root: Path, blob: str) -> str:
    """The text of `source` with its links as they are on the site.

    `places` says where files of the checkout are there, `blob` is the address under which the
    repository shows its files, or empty.
    """
    here = PurePosixPath(places[source]).parent

    def link(found: re.Match[str]) -> str:
        if found["code"] or found["target"].startswith(_ELSEWHERE):
            return found[0]
        shown = _LINK.sub(link, found["text"])
        path, hash_, anchor = found["target"].partition("#")
        target = (source.parent / path).resolve()
        place = places.get(target) or places.get(target / "README.md")
        if place:
            return f"[{shown}]({os.path.relpath(place, here)}{hash_}{anchor})"
        if blob:
            return f"[{shown}]({blob}/{target.relative_to(root)}{hash_}{anchor})"
        return shown

    return _LINK.sub(link, text)


def deepened(text: str) -> str:
    """The text with what belongs to a numbered item indented by four, as Python-Markdown has it.

    GitHub takes three, the width of `1. `.
    """
    lines, within = [], False
    for line in text.splitlines():
        if re.match(r"\d\. ", line):
            within = True
        elif line and not line.startswith("   "):
            within = False
        lines.append(f" {line}" if within and line.startswith("   ") else line)
    return "\n".join(lines) + "\n"


def mentions(name: str, pages: Mapping[str, str], title: Callable[[str], str]) -> str:
    """The list of pages that name it, for a page one folder below the top."""
    named = re.compile(rf"(?<![\w.]){re.escape(name)}(?!\w)")
    found = [page for page, text in pages.items() if named.search(text)]
    if not found:
        return ""
    return "## Where it is explained\n\n" + "".join(
        f"* [{title(pages[page])}](../{page})\n" for page in found
    )
