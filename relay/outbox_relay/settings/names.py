"""Which content types and exchanges rows may name."""

import re
from dataclasses import dataclass
from typing import Final


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


#: Data that is only data. Missing on purpose: pickle (application/x-python-serialize) and YAML.
PLAIN_DATA: Final = (
    "application/json, application/*+json, application/x-msgpack, application/msgpack, "
    "application/vnd.msgpack, application/data, application/octet-stream, application/text, "
    "application/cbor, application/*+cbor, application/avro, avro/*, application/protobuf, "
    "application/x-protobuf, application/vnd.google.protobuf, application/xml, application/*+xml, "
    "text/plain, text/html, text/csv, text/xml"
)
