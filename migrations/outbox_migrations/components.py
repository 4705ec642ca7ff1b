"""The two schemas this package migrates, and the names they may have."""

import re
from dataclasses import dataclass
from typing import Final

from alembic import context

from outbox_migrations.errors import InvalidSetting

#: Postgres truncates longer names silently, and quoting others invites mistakes in every query.
IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Component:
    """One independently migrated schema: `outbox` (producers and relay) or `inbox` (workers)."""

    name: str
    schema: str

    def __post_init__(self) -> None:
        if not IDENTIFIER.fullmatch(self.schema):
            raise InvalidSetting(
                f"the {self.name} schema cannot be named {self.schema!r}: use lower-case letters, "
                "digits and underscores, at most 63"
            )

    @property
    def quoted_schema(self) -> str:
        """The schema as it appears in SQL; `schema` is validated, so quoting is all it needs."""
        return f'"{self.schema}"'

    @property
    def version_location(self) -> str:
        """Where Alembic finds this component's migrations."""
        return f"outbox_migrations:{self.name}"


def schema_of(name: str) -> str:
    """The quoted schema that the running migration of component `name` works on.

    Alembic environments other than ours choose it with `config.attributes["outbox_schema"]` (or
    `"inbox_schema"`); without it the schema has the component's own name.
    """
    chosen = context.config.attributes.get(f"{name}_schema", name)
    return Component(name, chosen).quoted_schema
