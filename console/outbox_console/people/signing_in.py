"""The ways to sign in. Each says who a request is from, or None where it cannot tell.

`Nobody` is for loopback; `Basic` asks for name and password; `Proxy` believes the header of a
reverse proxy, and only of that one.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Protocol

from outbox_console.people.directory import Directory
from outbox_console.people.passwords import hashed, matches
from outbox_console.people.person import Person
from outbox_console.settings import Network, Settings


class SignIn(Protocol):
    """A way to tell who a request is from. May block for a tenth of a second."""

    #: Sent with a refusal, so that a browser asks; empty where asking is of no use.
    challenge: str

    def who(self, headers: Mapping[str, str], address: str) -> Person | None:
        """The person, or None."""
        ...


class Nobody:
    """Whoever can reach loopback: there is nobody to tell apart."""

    challenge = ""

    def __init__(self, role: str) -> None:
        self._person = Person("local", role)

    def who(self, headers: Mapping[str, str], address: str) -> Person | None:  # noqa: ARG002 - a protocol's
        """Always the same."""
        return self._person


class Proxy:
    """A reverse proxy has asked for the password, and names who it was."""

    challenge = ""

    def __init__(self, header: str, proxies: tuple[Network, ...], role: str) -> None:
        self._header, self._proxies, self._role = header.lower(), proxies, role

    def who(self, headers: Mapping[str, str], address: str) -> Person | None:
        """The header's word, if the request came from the proxy."""
        name = headers.get(self._header, "").strip()
        try:
            client = ip_address(address)
        except ValueError:
            return None
        known = any(client in network for network in self._proxies)
        return Person(name[:255], self._role) if known and name else None


class Basic:
    """Name and password with each request (HTTP basic), compared with the file of people.

    A password that was right once is remembered as a keyed digest, because scrypt is slow on
    purpose; a changed file is looked at anew.
    """

    challenge = 'Basic realm="outbox", charset="UTF-8"'

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        self._nobody = hashed(secrets.token_hex(16))

    def who(self, headers: Mapping[str, str], address: str) -> Person | None:  # noqa: ARG002 - a protocol's
        """The person whose password it is."""
        name, password = credentials(headers.get("authorization", ""))
        if not name:
            return None
        known = self._directory.people().get(name)
        # Of somebody unknown too: else the time it takes would tell who is known.
        expected = known.hash if known else self._nobody
        digest = hmac.digest(self._key, f"{expected}\0{password}".encode(), sha256)
        if not hmac.compare_digest(self._right.get(name, b""), digest):
            if not matches(password, expected) or not known:
                return None
            self._right[name] = digest
        return Person(known.name, known.role) if known else None


def credentials(header: str) -> tuple[str, str]:
    """Name and password of an Authorization header; both empty where there are none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > 4096:
        return "", ""
    try:
        name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def sign_in(settings: Settings) -> SignIn:
    """The way that the settings ask for; raises SettingsError where the file is wrong."""
    if settings.people_file:
        return Basic(Directory(settings.people_file))
    if settings.user_header:
        return Proxy(settings.user_header, settings.proxies, settings.role)
    return Nobody(settings.role)
