"""Whether a URL can be what it should be. No error repeats any of it: it may hold a password.

Without the libraries that will read it: a health check, which runs every few seconds, loads none.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

#: A password ends at the first of these, and the rest of it would be taken for host, port or path.
ENCODE: Final = "percent-encode / ? # @ in user and password (%2F %3F %23 %40); ports are numbers"

_HOST: Final = r"(?:\[[^]]*\]|[^:,/?@[\]]*)(?::\d*)?"
#: As libpq takes it apart; a database's name with an @ is rather the end of a password.
_LIBPQ_URL: Final = re.compile(rf"(?:[^@/]*@)?{_HOST}(?:,{_HOST})*(?:/[^?@]*)?(?:\?.*)?", re.DOTALL)
_LIBPQ_WORD: Final = re.compile(
    r"\s*\w+\s*=\s*('(?:[^'\\]|\\.)*'|(?!')(?:[^\s\\]|\\.)*)(?:\s+|$)", re.DOTALL
)
_NOT_ENCODED: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def check_database_url(text: str) -> None:
    """Raise ValueError where libpq could not connect, or would look where nobody told it to."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme in ("postgresql", "postgres"):
        if not _LIBPQ_URL.fullmatch(rest) or _NOT_ENCODED.search(rest):
            raise ValueError(ENCODE)
        if not rest:
            raise ValueError("it names no database")
        return
    if "=" not in text:
        raise ValueError("give postgresql://user@host:port/database, or host=... dbname=...")
    end, value = 0, ""
    while end < len(text):
        word = _LIBPQ_WORD.match(text, end)
        if not word:
            raise ValueError("put 'quotes' around what has blanks in it")
        end, value = word.end(), word[1]
    if not value:
        raise ValueError("its last word has no value")


def check_broker_url(text: str, schemes: Sequence[str]) -> None:
    """Raise ValueError where kombu could not read one of the URLs, or would misread it."""
    for url in map(str.strip, text.split(";")):
        scheme, separator, rest = url.partition("://")
        if not separator or not rest or scheme not in schemes:
            raise ValueError(f"give a URL that starts with one of {', '.join(schemes)}")
        try:
            parts = urlsplit(f"http://{rest}")  # as kombu does, whatever the scheme
            readable = parts.port != 0 and "@" not in rest[len(parts.netloc) :]
        except ValueError:  # its words have the text in them
            readable = False
        if not readable:
            raise ValueError(ENCODE)
