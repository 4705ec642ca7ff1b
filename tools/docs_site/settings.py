"""A page for each setting, from the tables and docstrings of the programs that read it."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from outbox_console.settings import VARIABLES as CONSOLE
from outbox_relay.configuration import TABLE
from outbox_relay.settings.setting import Setting, flag_of

#: Where the producer says, in the docstrings of its functions, what it reads.
PRODUCER: Final = "producer/celery_outbox/settings.py"

#: What the console reads from files as well, only its page has.
CONSOLE_PAGE: Final = "docs/console.md"
#: Meanings are written for the table of Operations: their links start from there.
TABLE_IS_IN: Final = "operations.md"
_LINK: Final = re.compile(r"\]\(([^)#\s]*)")

Settings = Mapping[str, Sequence[str]]


def settings(root: Path) -> Settings:
    """Every setting, and what each program that has it says of it."""
    said: dict[str, list[str]] = defaultdict(list)
    for setting in TABLE:
        said[setting.name].append(_of_relay(setting))
    for name, default, meaning in CONSOLE:
        said[name].append(_of_console(default, meaning))
    for name, meaning in _secrets_of_console((root / CONSOLE_PAGE).read_text()):
        said[name].append(meaning)
    for name, meaning in _of_producer(root / PRODUCER):
        said[name].append(f"## In your application\n\n{meaning}")
    return dict(sorted(said.items()))


def page_of(name: str) -> str:
    """Its page on the site."""
    return f"settings/{name}.md"


def body(name: str, said: Sequence[str]) -> str:
    """The page, but for what other pages say of it."""
    return "\n\n".join([f"# {name}", *said]) + "\n"


def index(found: Settings) -> str:
    """All of them at a glance."""
    rows = "".join(f"* [{name}]({name}.md)\n" for name in found)
    return f"""# Settings

What the programs read from the environment, and the producer from Celery's configuration or
Django's settings as well. [Operations](../operations.md) has those of the relay in one table.

{rows}"""


def _of_relay(setting: Setting[Any]) -> str:
    meaning = ". ".join(filter(None, [setting.help, setting.note]))
    default = setting.shown_default or (f"`{setting.default}`" if setting.default else "none")
    lines = [
        "## The relay",
        _LINK.sub(_from_below, f"{meaning[0].upper()}{meaning[1:]}."),
        f"Default: {default}. On the command line: `outbox-relay run {flag_of(setting.name)} …`",
    ]
    if setting.secret:
        lines.append(f"`{setting.name}_FILE` names a file that holds it instead.")
    return "\n\n".join(lines)


def _from_below(link: re.Match[str]) -> str:
    """The same link from a page in a folder."""
    return link[0] if ":" in link[1] else f"](../{link[1] or TABLE_IS_IN}"


def _of_console(default: str, meaning: str) -> str:
    shown = f"`{default}`" if default else "none"
    return f"## The console\n\n{meaning[0].upper()}{meaning[1:]}.\n\nDefault: {shown}."


def _secrets_of_console(page: str) -> Iterator[tuple[str, str]]:
    known = {name for name, *_ in CONSOLE}
    for names, meaning in re.findall(r"(?m)^\| (`OUTBOX_[^|]*) \|[^|]*\| (.*) \|$", page):
        for name in re.findall(r"`(OUTBOX_CONSOLE_\w+)`", names):
            if name not in known and not name.endswith("_FILE"):
                in_file = f"`{name}_FILE` names a file that holds it instead."
                yield name, f"## The console\n\n{meaning[0].upper()}{meaning[1:]}.\n\n{in_file}"


def _of_producer(file: Path) -> Iterator[tuple[str, str]]:
    for node in ast.parse(file.read_text()).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        text = ast.get_docstring(node) or ""
        configured = re.search(r"`(outbox_\w+)`", text)
        if configured:
            variable = re.search(r"\bOUTBOX_\w+", text)
            meaning = text.removeprefix("Return ")
            yield (
                variable[0] if variable else configured[1],
                f"{meaning[0].upper()}{meaning[1:]}",
            )
