"""Whether a URL can be what it should be. No error repeats any of it: it may hold a password."""

import re
from typing import Final

import psycopg
from kombu.utils.url import parse_url
from psycopg.conninfo import conninfo_to_dict

SCHEMES: Final = ("amqp", "amqps", "redis", "rediss", "sentinel", "valkey", "valkeys")
#: A password ends at the first of these, and the rest of it would be taken for host, port or path.
ENCODE: Final = "percent-encode / ? # @ in user and password (%2F %3F %23 %40); ports are numbers"


def check_database_url(text: str) -> None:
    """Raise ValueError where libpq could not connect, or would look where nobody told it to."""
    is_url = text.startswith(("postgresql://", "postgres://"))
    if not (is_url or "=" in text):
        raise ValueError("give postgresql://user@host:port/database, or host=... dbname=...")
    try:
        parts = conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        raise ValueError(ENCODE if is_url else "give host=... dbname=...") from None
    if not any(parts.values()):
        raise ValueError("it names no database")
    ports = str(parts.get("port") or "").split(",")
    astray = is_url and "@" in f"{parts.get('host')}{parts.get('dbname')}"
    if astray or not all(port.isdigit() for port in ports if port):
        raise ValueError(ENCODE)


def check_broker_url(text: str) -> None:
    """Raise ValueError where kombu could not read one of the URLs, or would misread it."""
    for url in map(str.strip, text.split(";")):
        scheme, separator, rest = url.partition("://")
        if not separator or not rest or scheme not in SCHEMES:
            raise ValueError(f"give a URL that starts with one of {', '.join(SCHEMES)}")
        try:
            port = parse_url(url)["port"]
        except Exception:  # of any kind, and with the text in its words
            raise ValueError(ENCODE) from None
        beyond = re.split(r"[/?#]", rest, maxsplit=1)[1:]
        if port == 0 or any("@" in each for each in beyond):
            raise ValueError(ENCODE)
