"""A statement with its name, and the columns of what its rows are made into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL in which `{outbox}` stands for the schema's quoted name, and its name as prepared."""

    name: str
    text: str

    def in_schema(self, schema: str) -> "Statement":
        """The statement as it is sent."""
        return Statement(self.name, self.text.format(outbox=f'"{schema}"'))


def columns(fields: Sequence[str], expressions: Mapping[str, str]) -> str:
    """A select list with an expression for each of the fields, in their order."""
    if {*fields} != {*expressions}:
        raise TypeError(f"not the same fields: {sorted({*fields} ^ {*expressions})}")
    return ",\n       ".join(f"{expressions[name]} AS {name}" for name in fields)
