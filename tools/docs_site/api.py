"""The pages of the public Python API: their content is made of docstrings as the site is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import celery_inbox
import celery_outbox
import celery_outbox.testing
import outbox_console
import outbox_migrations


@dataclass(frozen=True, slots=True)
class Module:
    """A module, and what it offers."""

    name: str
    names: tuple[str, ...]

    @property
    def page(self) -> str:
        """Its page on the site."""
        return f"api/{self.name}.md"


#: Where mkdocstrings finds them, from the checkout.
PATHS: Final = ("producer", "worker", "migrations", "console")
MODULES: Final = tuple(
    Module(module.__name__, tuple(n for n in module.__all__ if n != "__version__"))
    for module in (
        celery_outbox,
        celery_outbox.testing,
        celery_inbox,
        outbox_migrations,
        outbox_console,
    )
)


def body(module: Module, errors: dict[str, str]) -> str:
    """The page; an error that has one of its own is named with a link."""
    shown = [name for name in module.names if name not in errors]
    lines = [f"# `{module.name}`", f"::: {module.name}", "    options:", "      members:"]
    text = f"{lines[0]}\n\n" + "\n".join([*lines[1:], *(f"        - {name}" for name in shown)])
    linked = [f"[{name}](../{errors[name]})" for name in module.names if name in errors]
    if linked:
        text += f"\n\n## Errors of `{module.name}`\n\n{', '.join(linked)}"
    return text + "\n"


def index() -> str:
    """All of them at a glance."""
    rows = "".join(f"* [`{module.name}`]({Path(module.page).name})\n" for module in MODULES)
    return f"# Python\n\nWhat your code may import; all else may change.\n\n{rows}"
