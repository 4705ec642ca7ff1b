"""Sign-in with OpenID Connect, against a small provider that signs tokens as a real one does."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from itsdangerous import TimestampSigner
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from outbox_console import settings
from outbox_console.app import serve_app
from outbox_console.people.cookies import Cookies
from servers.ports import free_port
from tests.console.conftest import Browser, served
from tests.console.provider import SECRET, Provider, environment

HTML = {"accept": "text/html"}


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


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_cookies_are_for_https_where_browsers_come_by_it(
    visit: Callable[..., Browser], provider: Provider, outbox: str, scheme: str
) -> None:
    """Each of them, also where the proxy in front tells nothing: the setting has said so."""
    given = environment(outbox, provider.address, f"{scheme}://outbox.example")
    browser = visit(serve_app(settings.read(given)), headers=HTML, follow_redirects=False)
    signed_in = Response()
    people = Cookies("person", lambda: SECRET, 60, "/", scheme == "https")
    people.put(signed_in, "outbox_console_person", {"name": "ada", "held": ["ops"]})
    person = signed_in.headers["set-cookie"]
    page = browser.get("/actions", headers={"cookie": person.partition(";")[0]})
    cookies = [person, page.headers["set-cookie"], browser.get("/sign-in").headers["set-cookie"]]

    assert [each.partition("=")[0] for each in cookies[:2]] == [
        "outbox_console_person",
        "outbox_console",
    ]
    assert [("secure" in each.lower()) for each in cookies] == [scheme == "https"] * 3
    assert all("httponly" in each.lower() for each in cookies)


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


@pytest.mark.parametrize(("roles", "role"), [("ops=viewer", "viewer"), ("dev=viewer", "")])
def test_a_role_that_is_taken_back_ends_with_the_next_start(
    console: Browser, provider: Provider, outbox: str, roles: str, role: str
) -> None:
    """And not with the shift: the cookie has what the provider said, the settings give the role."""
    assert "Signed in as ada, operator" in console.get("/").text
    changed = environment(outbox, provider.address, str(console.base_url))
    app = serve_app(settings.read({**changed, "OUTBOX_CONSOLE_OIDC_ROLES": roles}))

    with served(app) as address:
        page = Browser(base_url=address, cookies=console.cookies, headers=HTML).get("/")

    assert page.status_code == (200 if role else 303)
    assert (f"Signed in as ada, {role}" in page.text) == bool(role)


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
