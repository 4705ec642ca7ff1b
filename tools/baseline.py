"""Writes the first migration of each component from `schema/`, until a release freezes it.

`make baseline` after a change in `migrations/outbox_migrations/schema/`. Once version 0.1.0 is out,
a change of the schema is a migration of its own instead; a test compares the two ways.
"""

from typing import Final

from outbox_migrations.schema_files import PACKAGE, today

HEAD: Final = """\
-- Made by `make baseline` from schema/{component}/: change it there.

"""


def main() -> None:
    """Write both."""
    for component in ("outbox", "inbox"):
        path = PACKAGE / component / f"{component}_0001.sql"
        path.write_text(HEAD.format(component=component) + today(component), encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
