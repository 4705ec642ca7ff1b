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
from itsdangerous import TimestampSigner
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
    """In the order of the setting; a claim may be one value, and a star is everybody."""
    mapped = known("admins=operator", "dev=viewer")
    open_to_all = known("admins=operator", "*=viewer")

    assert person({"sub": "1", "groups": ["dev", "admins"]}, mapped).role == "operator"
    assert person({"email": "a@b", "groups": "dev"}, mapped).role == "viewer"
    assert person({"sub": "1"}, open_to_all).role == "viewer"
    assert person({"sub": "1", "groups": ["admins"]}, open_to_all).role == "operator"
    with pytest.raises(NotLetIn):
        person({"groups": ["dev"]}, mapped)


@pytest.mark.parametrize("groups", [{"dev": 1}, [{"name": "dev"}], [["dev"]], None, True, ["*"]])
def test_a_claim_of_another_shape_gives_no_role(groups: object) -> None:
    """Objects, lists in lists and what is no text are in no group; so is who is called a star."""
    with pytest.raises(NotLetIn, match="in no group"):
        person({"sub": "1", "groups": groups}, known("dev=viewer", "True=operator"))


@pytest.mark.parametrize("claim", [{"first": "ada"}, ["ada", {}], [], None, "a\0b"])
def test_a_name_of_another_shape_is_passed_over(claim: object) -> None:
    """The next claim that is text names the person."""
    found = person({"preferred_username": claim, "sub": "ada"}, known("*=viewer"))

    assert found.name == "ada"


def known(*roles: str) -> OpenId:
    """A provider's settings, with the roles of the environment."""
    given = environment("postgresql:///x", "https://sso.example", "https://outbox.example")
    read = settings.read({**given, "OUTBOX_CONSOLE_OIDC_ROLES": ",".join(roles)}).openid
    assert read is not None
    return read


def test_nobody_is_let_in_by_default() -> None:
    """A provider without roles would open the console to all it knows: it does not start."""
    given = environment("postgresql:///x", "https://sso.example", "https://outbox.example")
    del given["OUTBOX_CONSOLE_OIDC_ROLES"]

    with pytest.raises(SettingsError, match=r"OUTBOX_CONSOLE_OIDC_ROLES is not set.*\*=viewer"):
        settings.read(given)


def test_only_the_providers_word_begins_a_shift(console: Browser) -> None:
    """Neither the way to the provider nor looking at pages makes the cookie any younger."""
    console.get("/")
    before = console.cookies["outbox_console_person"]
    answers = [console.get(path, follow_redirects=False) for path in ("/sign-in", "/", "/actions")]

    assert [answer.status_code for answer in answers] == [302, 200, 200]
    assert all("outbox_console_person" not in str(each.headers) for each in answers)
    assert console.cookies["outbox_console_person"] == before


def test_after_a_shift_the_provider_is_asked_again(
    console: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the cookie was shown meanwhile."""
    with monkeypatch.context() as patch:
        patch.setattr(TimestampSigner, "get_timestamp", lambda _: int(time.time()) - 8 * 3600 - 5)
        console.get("/", follow_redirects=False)
        console.get("/sign-in")
    assert "outbox_console_person" in console.cookies

    assert console.get("/actions", follow_redirects=False).status_code == 303


def test_tabs_that_sign_in_at_once_all_come_in(console: Browser) -> None:
    """Each gets the page it asked for, whichever is back first."""
    pages = ["/actions", "/routes", "/workers"]
    ways = [console.get(page, follow_redirects=False).headers["location"] for page in pages]
    there = [console.get(way, follow_redirects=False).headers["location"] for way in ways]

    found = [console.get(address) for address in reversed(there)]

    assert [page.status_code for page in found] == [200, 200, 200]
    assert [page.url.path for page in found] == pages[::-1]
    left = [name for name in console.cookies if name.startswith("outbox_console_way")]
    assert left == []


def test_tabs_that_never_come_back_do_not_add_up(console: Browser) -> None:
    """Their cookies would be more than a proxy takes; the newest still come in."""
    for _ in range(30):
        there = console.get("/sign-in", follow_redirects=False).headers["location"]
    kept = [name for name in console.cookies if name.startswith("outbox_console_way")]

    assert len(kept) == 8
    assert console.get(there).status_code == 200


@pytest.mark.parametrize("answer", [[], "text", {"issuer": {}}, {"authorization_endpoint": []}])
def test_an_answer_of_another_shape_lets_nobody_in(outbox: str, answer: object) -> None:
    """Whatever the provider says of itself: a sentence, and no traceback."""

    async def configuration(_: Request) -> Response:
        return JSONResponse(answer)

    made = Starlette(routes=[Route("/.well-known/openid-configuration", configuration)])
    port = free_port()
    with served(made) as issuer:
        app = serve_app(settings.read(environment(outbox, issuer, f"http://127.0.0.1:{port}")))
        with served(app, port=port) as address:
            got = Browser(base_url=address, follow_redirects=True, headers=HTML).get("/")

    assert (got.status_code, "OUTBOX_CONSOLE_OIDC_ISSUER" in got.text) == (503, True)
