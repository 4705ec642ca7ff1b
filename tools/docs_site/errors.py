"""A page for each error that people meet, from its class: the docstring is what it says."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = {
    "producer/celery_outbox": "celery-outbox",
    "worker/celery_inbox": "celery-inbox",
    "relay/outbox_relay": "outbox-relay",
    "migrations/outbox_migrations": "outbox-migrations",
    "console/outbox_console": "outbox-console",
}


@dataclass(frozen=True, slots=True)
class Raised:
    """An error, as its class in an `errors.py` says."""

    name: str
    package: str
    module: str
    bases: tuple[str, ...]
    text: str

    @property
    def page(self) -> str:
        """Its page on the site: a name that two packages have needs the package's as well."""
        return f"errors/{self.package}-{self.name}.md"

    @property
    def title(self) -> str:
        """What somebody types into a search engine who has met it."""
        return f"{self.name} ({self.package})"


def errors(root: Path) -> list[Raised]:
    """Every public one, in the order of packages and of their files."""
    return [
        found
        for folder, package in PACKAGES.items()
        for file in sorted((root / folder).rglob("errors.py"))
        for found in _classes(file, package, _module(file, root / folder))
    ]


def order(found: list[Raised]) -> list[str | dict[str, Any]]:
    """Their place on the site: those of a package together, by name alone."""
    return ["errors/index.md"] + [
        {package: [{error.name: error.page} for error in found if error.package == package]}
        for package in PACKAGES.values()
    ]


def body(error: Raised) -> str:
    """The page, but for what other pages say of it."""
    message, *rest = re.split(r"\n\s*\n", error.text)
    fields = re.sub(r"\{(\w+)\}", r"<em>\1</em>", message.replace("\n", " "))
    bases = ", ".join(f"`{base}`" for base in error.bases)
    return "\n\n".join(
        [
            f"# {error.title}",
            f"> {fields}",
            *(re.sub(r"\{(\w+)\}", r"<em>\1</em>", part) for part in rest),
            f"Raised as `{error.module}.{error.name}`, which is a {bases}.\n",
        ]
    )


def index(found: list[Raised]) -> str:
    """All of them at a glance."""
    lines = ["# Errors", "Each says what is wrong, and the way out."]
    for package in PACKAGES.values():
        rows = [
            f"| [{error.name}]({Path(error.page).name}) | {_first_sentence(error)} |"
            for error in found
            if error.package == package
        ]
        lines += [f"## {package}", "| error | what it says |\n|---|---|\n" + "\n".join(rows)]
    return "\n\n".join(lines) + "\n"


def _first_sentence(error: Raised) -> str:
    first = " ".join(re.split(r"\n\s*\n", error.text)[0].split())
    return re.sub(r"\{(\w+)\}", r"<em>\1</em>", first.replace("|", r"\|"))


def _classes(file: Path, package: str, module: str) -> Iterator[Raised]:
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = tuple(ast.unparse(base) for base in node.bases)
            yield Raised(node.name, package, module, bases, ast.get_docstring(node) or "")


def _module(file: Path, package: Path) -> str:
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts)
