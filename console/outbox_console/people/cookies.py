"""Signed cookies: what a browser keeps for us, and cannot change.

A cookie is made once and ends at its time; looking at pages renews nothing. The key is made of the
client's secret at the provider: several consoles know it, and nobody else.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import Response

from outbox_console.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Cookies:
    """Those of one kind: they last `seconds`, and are sent to what is below `path`."""

    kind: str
    secret: Callable[[], str]
    seconds: int
    path: str
    https_only: bool

    def read(self, connection: HTTPConnection, name: str) -> dict[str, Any] | None:
        """What was put there; None where nothing was, by us and recently."""
        from itsdangerous import BadData

        try:
            found = self._signer().loads(connection.cookies.get(name, ""), self.seconds)
        except (BadData, SettingsError):  # without a key none is ours
            return None
        return found if isinstance(found, dict) else None

    def put(self, response: Response, name: str, value: dict[str, Any]) -> None:
        """Have the browser keep it from now on."""
        response.set_cookie(
            name,
            self._signer().dumps(value),
            max_age=self.seconds,
            path=self.path,
            secure=self.https_only,
            httponly=True,
            samesite="lax",  # the provider leads back from its own site
        )

    def drop(self, response: Response, name: str) -> None:
        """Have the browser forget it."""
        response.delete_cookie(
            name, path=self.path, secure=self.https_only, httponly=True, samesite="lax"
        )

    def _signer(self) -> Any:
        from itsdangerous import URLSafeTimedSerializer

        # Read anew: it may have been replaced.
        key = hmac.digest(self.secret().encode(), b"outbox-console people", sha256)
        return URLSafeTimedSerializer(key, salt=self.kind)
