"""Which content types, exchanges and reserved properties rows may name."""

import re
from dataclasses import dataclass
from typing import Final

#: By these a row reaches further than it says: RabbitMQ also routes by the headers CC and BCC, and
#: vouches for the property user_id, which can only be the relay's own.
RESERVED: Final = frozenset({"CC", "BCC", "user_id"})


@dataclass(frozen=True, slots=True)
class Names:
    """Names a setting allows; a `*` in one stands for any text."""

    patterns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Names":
        """From names separated by commas."""
        patterns = tuple(name for each in text.split(",") if (name := each.strip()))
        if not patterns:
            raise ValueError("give names, separated by commas")
        return cls(patterns)

    @property
    def everything(self) -> bool:
        """Whether no name is missing."""
        return "*" in self.patterns

    def __contains__(self, name: str) -> bool:
        return any(
            re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL)
            for pattern in self.patterns
        )


ANY: Final = Names(("*",))
#: Data that is only data. Missing on purpose: pickle (application/x-python-serialize) and YAML.
PLAIN_DATA: Final = Names.parse(
    "application/json, application/*+json, application/x-msgpack, application/msgpack, "
    "application/vnd.msgpack, application/data, application/octet-stream, application/text, "
    "application/cbor, application/*+cbor, application/avro, avro/*, application/protobuf, "
    "application/x-protobuf, application/vnd.google.protobuf, application/xml, application/*+xml, "
    "text/plain, text/html, text/csv, text/xml"
)


def reserved_but(text: str) -> frozenset[str]:
    """The reserved names that remain when those in `text` are allowed."""
    allowed = {name for each in text.split(",") if (name := each.strip())}
    if unknown := allowed - RESERVED:
        raise ValueError(f"{min(unknown)!r} is not reserved; {', '.join(sorted(RESERVED))} are")
    return RESERVED - allowed
