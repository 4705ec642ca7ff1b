"""Writes the table of docs/operations.md: every setting of the relay, from the table it reads.

`make settings-page`; a test keeps the page equal to it.
"""

import re
from pathlib import Path
from typing import Any, Final

from outbox_relay.configuration import TABLE
from outbox_relay.settings.setting import Setting

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/operations.md"
HEAD: Final = "| variable | default | meaning |\n|---|---|---|\n"


def table() -> str:
    """The table as Markdown."""
    return HEAD + "".join(map(_row, TABLE))


def written(page: str) -> str:
    """The page with its table as it should be."""
    found = re.search(rf"{re.escape(HEAD)}(?:\|.*\n)*", page)
    assert found, f"{PAGE} has no table of settings"
    return page[: found.start()] + table() + page[found.end() :]


def _row(setting: Setting[Any]) -> str:
    names = ", ".join(f"`{name}`" for name in setting.variables)
    default = setting.shown_default or (f"`{setting.default}`" if setting.default else "")
    meaning = ". ".join(filter(None, [setting.help, setting.note]))
    return f"| {names} | {default} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
