"""The SQL files of a component, filled in for the Postgres schema it is to live in.

The files are written for schemas named `outbox` and `inbox`, so that psql and editors read them as
they are. Here the name is replaced where it names the schema, and nowhere else: not in prose.
"""

import re
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent
#: Where the name of a schema stands in these files: before a name, and after these words.
PLACES: Final = r"(?<![\w-]){name}(?=\.[a-z_])|(?<=search_path = ){name}\b|(?<=SCHEMA ){name}\b"


def today(component: str) -> str:
    """The schema of today: the files of `schema/` in their order."""
    files = sorted((PACKAGE / "schema" / component).glob("*.sql"))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def version(component: str, revision: str) -> str:
    """What a migration runs: the file beside it, which a release never changes again."""
    return (PACKAGE / component / f"{revision}.sql").read_text(encoding="utf-8")


def filled(text: str, component: str, quoted_schema: str) -> str:
    """`text` for a schema of another name, given quoted."""
    return re.sub(PLACES.format(name=component), lambda _: quoted_schema, text)
