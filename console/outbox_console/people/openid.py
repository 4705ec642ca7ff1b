"""Sign-in with OpenID Connect: a provider has asked for the password, and signs who it was.

authlib does what is easy to get wrong: state, nonce, PKCE, keys, and what a token must hold. Who
somebody is stands in a signed cookie until that is too old. Its key is made of the client's secret:
several consoles know it, and nobody else.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from outbox_console.errors import SettingsError
from outbox_console.people.person import Person
from outbox_console.settings import OpenId

SIGN_IN: Final = "/sign-in"
CALLBACK: Final = "/sign-in/callback"
COOKIE: Final = "outbox_console_person"
#: Seconds until somebody signs in again: as long as a shift.
MAX_AGE: Final = 8 * 3600
#: Seconds for an answer of the provider.
_DEADLINE: Final = 10
#: What people are called, the first that there is.
_NAMES: Final = ("preferred_username", "email", "sub")


class NotLetIn(Exception):
    """Somebody did not sign in, or may not come in: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Provider:
    """The provider of the settings. `role` is everybody's where the settings map no claim."""

    settings: OpenId
    role: str

    def middleware(self) -> Middleware:
        """Keeps who somebody is, signed, in the browser."""
        key = hmac.digest(self.settings.client_secret().encode(), b"outbox-console people", sha256)
        return Middleware(
            SessionMiddleware,
            secret_key=key.hex(),
            session_cookie=COOKIE,
            max_age=MAX_AGE,
            same_site="lax",  # the provider leads back from its own site
            https_only=self.settings.url.startswith("https://"),
        )

    async def lead_there(self, request: Request) -> Response:
        """To the provider, and from there back. Raises NotLetIn."""
        import httpx

        try:
            answer = await self._client().authorize_redirect(
                request, f"{self.settings.url}{CALLBACK}"
            )
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise NotLetIn(503, _away(error)) from error
        assert isinstance(answer, Response)
        return answer

    async def let_in(self, request: Request) -> Person:
        """Who came back, by the provider's word. Raises NotLetIn."""
        import httpx
        from authlib.common.errors import AuthlibBaseError
        from authlib.integrations.starlette_client import OAuthError
        from joserfc.errors import JoseError

        try:
            token = await self._client().authorize_access_token(request)
        except OAuthError as error:
            raise NotLetIn(403, f"The provider let nobody in: {error.error}.") from error
        except (AuthlibBaseError, JoseError, httpx.HTTPError, ValueError, KeyError) as error:
            raise NotLetIn(503, _away(error)) from error
        claims = token.get("userinfo") or {}
        return person(claims, self.settings, self.role)

    def _client(self) -> Any:
        from authlib.integrations.starlette_client import OAuth

        return OAuth().register(
            "provider",
            client_id=self.settings.client_id,
            client_secret=self.settings.client_secret(),  # read anew: it may have been replaced
            server_metadata_url=f"{self.settings.issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": self.settings.scope,
                "code_challenge_method": "S256",
                "timeout": _DEADLINE,
            },
        )


def person(claims: Mapping[str, Any], settings: OpenId, role: str) -> Person:
    """Who the claims are about, with the highest role that they map to. Raises NotLetIn."""
    name = next((str(claims[each]) for each in _NAMES if claims.get(each)), "")
    if not name:
        raise NotLetIn(403, "The provider did not say who you are.")
    if settings.roles:
        held = claims.get(settings.claim, [])
        values = set(held if isinstance(held, list) else [held])
        matching = [mapped for value, mapped in settings.roles if value in values]
        if not matching:
            raise NotLetIn(403, f"{name} is in no group that may see the outbox.")
        role = matching[0]
    return Person(name[:255], role)


def who(connection: HTTPConnection) -> Person | None:
    """Who the cookie says it is; None where there is none, or it is too old."""
    known = connection.session.get("person")
    return Person(*known) if known else None


def check_installed() -> None:
    """Raises SettingsError where the extra is missing."""
    try:
        import authlib.integrations.starlette_client  # noqa: F401
    except ImportError:
        raise SettingsError(
            "OUTBOX_CONSOLE_OIDC_ISSUER needs: pip install 'outbox-console[oidc]'"
        ) from None


def _away(error: Exception) -> str:
    kind = type(error).__name__
    return f"The provider of OUTBOX_CONSOLE_OIDC_ISSUER gave no usable answer ({kind}). Try again."
