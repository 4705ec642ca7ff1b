"""Sign-in with OpenID Connect, against a small provider that signs tokens as a real one does."""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from outbox_console import settings
from outbox_console.app import serve_app
from outbox_console.errors import SettingsError
from outbox_console.people.openid import NotLetIn, person
from outbox_console.settings import OpenId
from servers.ports import free_port
from tests.console.conftest import Browser, served

SECRET = "a-client-secret-of-some-length"
HTML = {"accept": "text/html"}


@dataclass
class Provider:
    """Whoever comes is Ada. `spoil` changes the claims before they are signed."""

    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "1", "preferred_username": "ada", "groups": ["ops"]}
    )
    refuse: str = ""
    spoil: Callable[[dict[str, Any]], dict[str, Any]] = dict
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    signs_with: RSAKey | None = None
    address: str = ""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The provider's pages."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._configuration),
                Route("/keys", self._keys),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
            ]
        )

    async def _configuration(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.address,
                "authorization_endpoint": f"{self.address}/authorize",
                "token_endpoint": f"{self.address}/token",
                "jwks_uri": f"{self.address}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self.key.as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == "console"
        assert asked["code_challenge_method"] == "S256"
        back = {"state": asked["state"]}
        if self.refuse:
            back["error"] = self.refuse
        else:
            code = f"code-{len(self.codes)}"
            self.codes[code] = asked
            back["code"] = code
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(back)}")

    async def _token(self, request: Request) -> Response:
        sent = dict(parse_qsl((await request.body()).decode()))
        expected = "Basic " + base64.b64encode(f"console:{SECRET}".encode()).decode()
        assert request.headers["authorization"] == expected
        asked = self.codes.pop(sent["code"])
        proof = hashlib.sha256(sent["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(proof).decode().rstrip("=") == asked["code_challenge"]
        now = int(time.time())
        claims = self.spoil(
            {
                **self.claims,
                "iss": self.address,
                "aud": "console",
                "iat": now,
                "exp": now + 60,
                "nonce": asked["nonce"],
            }
        )
        header = {"alg": "RS256", "kid": "one"}
        token = jwt.encode(header, claims, self.signs_with or self.key)
        return JSONResponse({"access_token": "x", "token_type": "Bearer", "id_token": token})


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider that listens."""
    made = Provider()
    with served(made.app()) as address:
        made.address = address
        yield made


@pytest.fixture
def console(provider: Provider, outbox: str) -> Iterator[Browser]:
    """Somebody who has not signed in yet, in front of a console that asks that provider."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    app = serve_app(settings.read(environment(outbox, provider.address, address)))
    with served(app, port=port):
        yield Browser(base_url=address, timeout=20, follow_redirects=True, headers=HTML)


def environment(database_url: str, issuer: str, url: str, **more: str) -> dict[str, str]:
    """The settings of such a console."""
    return {
        "OUTBOX_DATABASE_URL": database_url,
        "OUTBOX_CONSOLE_URL": url,
        "OUTBOX_CONSOLE_OIDC_ISSUER": issuer,
        "OUTBOX_CONSOLE_OIDC_CLIENT_ID": "console",
        "OUTBOX_CONSOLE_OIDC_CLIENT_SECRET": SECRET,
        "OUTBOX_CONSOLE_OIDC_ROLES": "admins=operator-with-payload, ops=operator, dev=viewer",
        **more,
    }


def test_people_sign_in_and_get_the_page_they_asked_for(console: Browser) -> None:
    """With name and role of the provider; they leave again, and are asked anew."""
    page = console.get("/messages?state=dead&task=shop.bill")

    assert page.status_code == 200
    assert str(page.url).endswith("/messages?state=dead&task=shop.bill")
    assert "Signed in as ada, operator" in page.text
    left = console.submit(page, "/sign-out", "")
    assert "You have left" in left.text
    again = console.get("/actions", follow_redirects=False)
    assert again.headers["location"].startswith("/sign-in?next=%2Factions")


def test_what_is_no_page_is_refused_without_a_detour(console: Browser) -> None:
    """Streams and forms of somebody unknown, and what a person never sees."""
    for path in ("/events", "/hour"):
        answer = console.get(path, headers={"accept": "*/*"}, follow_redirects=False)
        assert answer.status_code == 403
    assert console.get("/healthz").status_code == 200


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example"])
def test_nobody_is_led_elsewhere(console: Browser, wanted: str) -> None:
    """The page to come back to is one of ours."""
    page = console.get("/sign-in", params={"next": wanted})

    assert page.status_code == 200
    assert str(page.url) == f"{console.base_url}/"


def test_who_is_in_no_group_stays_outside(console: Browser, provider: Provider) -> None:
    """With a sentence; and a refusal of the provider is passed on."""
    provider.claims["groups"] = ["sales"]
    refused = console.get("/")
    provider.refuse = "access_denied"
    denied = console.get("/")

    assert (refused.status_code, "ada is in no group" in refused.text) == (403, True)
    assert (denied.status_code, "access_denied" in denied.text) == (403, True)


SPOILT: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "for another": lambda claims: {**claims, "aud": "another"},
    "by another": lambda claims: {**claims, "iss": "https://evil.example"},
    "too old": lambda claims: {**claims, "exp": int(time.time()) - 3600},
    "for another request": lambda claims: {**claims, "nonce": "x"},
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_token_that_is_not_right_lets_nobody_in(
    console: Browser, provider: Provider, how: str
) -> None:
    """Whatever is wrong with it; and the page after it still asks."""
    provider.spoil = SPOILT[how]

    assert console.get("/").status_code in (403, 503)
    assert console.get("/", follow_redirects=False).status_code == 303


def test_a_key_of_somebody_else_lets_nobody_in(console: Browser, provider: Provider) -> None:
    """A signature is of the provider's keys."""
    provider.signs_with = RSAKey.generate_key(2048, {"kid": "one"})

    assert console.get("/").status_code in (403, 503)


def test_a_forged_return_lets_nobody_in(console: Browser) -> None:
    """Without the state that this browser was given."""
    answer = console.get("/sign-in/callback", params={"code": "code-0", "state": "made up"})

    assert answer.status_code == 403


def test_a_forged_cookie_is_none(console: Browser) -> None:
    """Its signature is made with the client's secret."""
    claims = base64.b64encode(json.dumps({"person": ["eve", "operator"]}).encode()).decode()
    console.cookies.set("outbox_console_person", f"{claims}.AAAA.BBBB")

    assert console.get("/actions", follow_redirects=False).status_code == 303


def test_a_provider_that_is_away_is_said(outbox: str) -> None:
    """Within its deadline, and with the setting's name."""
    port = free_port()
    issuer = f"http://127.0.0.1:{free_port()}"
    app = serve_app(settings.read(environment(outbox, issuer, f"http://127.0.0.1:{port}")))
    with served(app, port=port) as address:
        answer = Browser(base_url=address, follow_redirects=True, headers=HTML).get("/")

    assert (answer.status_code, "OUTBOX_CONSOLE_OIDC_ISSUER" in answer.text) == (503, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OUTBOX_CONSOLE_URL", ""),
        ("OUTBOX_CONSOLE_OIDC_ISSUER", "sso.example"),
        ("OUTBOX_CONSOLE_OIDC_CLIENT_ID", ""),
        ("OUTBOX_CONSOLE_OIDC_CLIENT_SECRET", ""),
        ("OUTBOX_CONSOLE_OIDC_ROLES", "ops=admin"),
        ("OUTBOX_CONSOLE_OIDC_ROLES", "operator"),
        ("OUTBOX_CONSOLE_USER_HEADER", "X-User"),
    ],
)
def test_settings_that_are_wrong_are_named(name: str, value: str) -> None:
    """Each by its variable, and no secret is repeated."""
    right = environment("postgresql:///x", "https://sso.example", "https://outbox.example")
    with pytest.raises(SettingsError) as error:
        settings.read({**right, "OUTBOX_CONSOLE_PROXIES": "127.0.0.1", name: value})

    assert name in str(error.value)
    assert SECRET not in str(error.value)


def test_the_highest_role_counts() -> None:
    """In the order of the setting; a claim may be one value; no mapping leaves the common role."""
    roles = (("admins", "operator"), ("dev", "viewer"))
    mapped = OpenId("i", "c", str, "u", "s", "groups", roles)
    plain = OpenId("i", "c", str, "u", "s", "groups", ())

    assert person({"sub": "1", "groups": ["dev", "admins"]}, mapped, "viewer").role == "operator"
    assert person({"email": "a@b", "groups": "dev"}, mapped, "operator").role == "viewer"
    assert person({"sub": "1"}, plain, "operator").role == "operator"
    with pytest.raises(NotLetIn):
        person({"groups": ["dev"]}, mapped, "viewer")
