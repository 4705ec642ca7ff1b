"""Sign-in with OpenID Connect: a provider has asked for the password, and signs who it was.

authlib does what is easy to get wrong: state, nonce, PKCE, keys, and what a token must hold. What
it has said of somebody stands in a signed cookie, for as long as a shift; after that the provider
is asked again. The role is that of the settings as they are now. Each tab that is on its way has a
cookie of its own.
"""

import logging
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Final

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from outbox_console.errors import SettingsError
from outbox_console.people.cookies import Cookies
from outbox_console.people.person import Person
from outbox_console.settings import EVERYBODY, OpenId

SIGN_IN: Final = "/sign-in"
CALLBACK: Final = "/sign-in/callback"
COOKIE: Final = "outbox_console_person"
_WAY: Final = "outbox_console_way_"
#: Seconds until somebody signs in again: as long as a shift; and those of a way to the provider.
MAX_AGE: Final = 8 * 3600
_ON_THE_WAY: Final = 600
#: How many tabs of one browser are on their way at once: more cookies some proxy might refuse.
_TABS: Final = 8
#: Seconds for an answer of the provider.
_DEADLINE: Final = 10
#: What people are called, the first that there is.
_NAMES: Final = ("preferred_username", "email", "sub")
_log: Final = logging.getLogger(__name__)


class NotLetIn(Exception):
    """Somebody did not sign in, or may not come in: a status and a sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Word:
    """The provider's about somebody: a name, and what they have of the values that give roles."""

    name: str
    held: list[str]

    def person(self, settings: OpenId) -> Person:
        """Who it is, with the highest role that the values map to. Raises NotLetIn."""
        for value, role in settings.roles:
            if value in (EVERYBODY, *self.held):
                return Person(self.name, role)
        raise NotLetIn(403, f"{self.name} is in no group that may see the outbox.")


class Provider:
    """The provider of the settings, and the cookies of those who come from it."""

    def __init__(self, settings: OpenId) -> None:
        self._settings = settings
        https = settings.url.startswith("https://")
        self._people = Cookies("person", settings.client_secret, MAX_AGE, "/", https)
        self._ways = Cookies("way", settings.client_secret, _ON_THE_WAY, SIGN_IN, https)

    async def lead_there(self, request: Request, wanted: str) -> Response:
        """To the provider, and from there back to the page that is wanted. Raises NotLetIn."""
        state = secrets.token_urlsafe(24)
        request.scope["session"] = {}  # where authlib puts what it has to know again
        try:
            answer = await self._client().authorize_redirect(
                request, f"{self._settings.url}{CALLBACK}", state=state
            )
        except Exception as error:  # whatever it may have answered, nobody has been let in
            raise _away(error) from error
        assert isinstance(answer, Response)
        on_the_way = [name for name in request.cookies if name.startswith(_WAY)]
        for name in on_the_way[: max(0, len(on_the_way) + 1 - _TABS)]:  # the oldest come first
            self._ways.drop(answer, name)
        self._ways.put(answer, _way(state), {"next": wanted, "session": request.session})
        return answer

    async def let_in(self, request: Request) -> tuple[Word, str]:
        """The provider's word on who came back, and the page they wanted. Raises NotLetIn."""
        from authlib.integrations.starlette_client import OAuthError

        way = self._ways.read(request, _way(request.query_params.get("state", "")))
        if way is None:
            raise NotLetIn(403, "Nobody was on this way to sign in, or for too long: begin again.")
        request.scope["session"] = way["session"]
        try:
            token = await self._client().authorize_access_token(request)
            claims = token.get("userinfo") or {}
        except OAuthError as error:
            raise NotLetIn(403, f"The provider let nobody in: {error.error}.") from error
        except Exception as error:
            raise _away(error) from error
        told = word(claims, self._settings)
        told.person(self._settings)
        return told, way["next"]

    def keep(self, request: Request, response: Response, told: Word) -> None:
        """Have the browser keep who it is, from now on; its way has come to its end."""
        self._people.put(response, COOKIE, asdict(told))
        self._ways.drop(response, _way(request.query_params.get("state", "")))

    def forget(self, response: Response) -> None:
        """Have the browser forget who it was."""
        self._people.drop(response, COOKIE)

    def who(self, connection: HTTPConnection) -> Person | None:
        """Who the cookie says it is; None where it says nothing, or gives no role any more."""
        match self._people.read(connection, COOKIE):
            case {"name": str(name), "held": [*held]}:
                with suppress(NotLetIn):
                    return Word(name, held).person(self._settings)
        return None

    def _client(self) -> Any:
        from authlib.integrations.starlette_client import OAuth

        return OAuth().register(
            "provider",
            client_id=self._settings.client_id,
            client_secret=self._settings.client_secret(),  # read anew: it may have been replaced
            server_metadata_url=f"{self._settings.issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": self._settings.scope,
                "code_challenge_method": "S256",
                "timeout": _DEADLINE,
            },
        )


def word(claims: Mapping[str, Any], settings: OpenId) -> Word:
    """What the claims say. Raises NotLetIn where they do not say who it is."""
    name = next((text for each in _NAMES for text in _texts(claims.get(each)) if text), "")
    if not name:
        raise NotLetIn(403, "The provider did not say who you are.")
    mapped = {value for value, _ in settings.roles}
    return Word(name[:255], [text for text in _texts(claims.get(settings.claim)) if text in mapped])


def check_installed() -> None:
    """Raises SettingsError where the extra is missing."""
    try:
        import authlib.integrations.starlette_client  # noqa: F401
        import itsdangerous  # noqa: F401
    except ImportError:
        raise SettingsError(
            "OUTBOX_CONSOLE_OIDC_ISSUER needs: pip install 'outbox-console[oidc]'"
        ) from None


def _texts(claim: object) -> list[str]:
    """The values of a claim, which is one or a list; what is neither text nor number is none."""
    values = claim if isinstance(claim, list) else [claim]
    found = [str(each) for each in values if type(each) in (str, int)]
    return [text for text in found if text.isprintable() and text != EVERYBODY]


def _way(state: str) -> str:
    """The cookie of a tab that is on its way: named, as it may be given back by anybody."""
    return _WAY + sha256(state.encode()).hexdigest()[:16]


def _away(error: Exception) -> NotLetIn:
    if isinstance(error, SettingsError):
        return NotLetIn(503, str(error))
    kind = type(error).__name__
    _log.warning("the provider gave no usable answer: %s", kind)
    return NotLetIn(
        503,
        f"The provider of OUTBOX_CONSOLE_OIDC_ISSUER gave no usable answer ({kind}). Try again.",
    )
