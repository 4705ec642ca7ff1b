"""Tells a form of ours from one that another site made: a token that only our pages know.

The token belongs to a random cookie and to the person. Several consoles that are given one secret
take each other's forms; without one the key lives as long as the process.
"""

import hmac
import secrets
from hashlib import sha256
from typing import Final

COOKIE: Final = "outbox_console"


class Forms:
    """Makes and checks the tokens of forms. `https_only`: browsers reach us by https alone."""

    def __init__(self, secret: str = "", *, https_only: bool = False) -> None:
        self.https_only = https_only
        derived = hmac.digest(secret.encode(), b"outbox-console forms", sha256)
        self._key = derived if secret else secrets.token_bytes(32)

    def new_cookie(self) -> str:
        """The value of a new cookie."""
        return secrets.token_urlsafe(32)

    def token(self, cookie: str, person: str) -> str:
        """What a form of that browser and that person carries."""
        return hmac.new(self._key, f"{cookie}\0{person}".encode(), sha256).hexdigest()

    def is_ours(self, token: str, cookie: str, person: str) -> bool:
        """Whether a form was made by us, for that browser and that person."""
        expected = self.token(cookie, person).encode()
        return bool(cookie) and hmac.compare_digest(token.encode(), expected)
