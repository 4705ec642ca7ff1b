"""Who may come in, what a form must carry, and what never leaves the server."""

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount

from outbox_console import Person, create_app, settings
from outbox_console.app import serve_app
from outbox_console.errors import SettingsError
from outbox_console.outbox.states import BY_NAME
from outbox_console.people.passwords import hashed
from tests.console.conftest import SECRET, Browse, Browser, bury
from tests.console.test_pages import PAGES
from tests.fixtures.rows import commit_rows, states

Visit = Callable[..., Browser]

#: Two people for all tests: hashing takes a tenth of a second.
PEOPLE = f"""
# name:role:hash
ada:operator-with-payload:{hashed("correct horse")}
eve:viewer:{hashed("battery staple")}
"""


def configured(url: str, **values: str) -> Starlette:
    """The application as the command makes it of an environment."""
    return serve_app(settings.read({"OUTBOX_DATABASE_URL": url, **values}))


def test_without_people_it_listens_on_loopback_alone() -> None:
    """Another address is refused with a sentence that names the settings."""
    url = {"OUTBOX_DATABASE_URL": "postgresql://localhost/x"}
    for host in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        settings.read({**url, "OUTBOX_CONSOLE_ADDRESS": host})
    for host in ("0.0.0.0:1", "[::]:1", "10.0.0.1:1", "console.example:1"):
        with pytest.raises(SettingsError, match="OUTBOX_CONSOLE_PEOPLE_FILE"):
            settings.read({**url, "OUTBOX_CONSOLE_ADDRESS": host})


def test_settings_that_are_wrong_are_named_without_their_secrets() -> None:
    """Each error names its variable; a password is never part of it."""
    right = {"OUTBOX_DATABASE_URL": "postgresql://localhost/x"}
    wrong = {
        "OUTBOX_DATABASE_URL": "postgresql+psycopg://me:hunter2@host/x y=z",
        "OUTBOX_SCHEMA": 'out"box',
        "OUTBOX_CONSOLE_ADDRESS": "9465",
        "OUTBOX_CONSOLE_ROLE": "admin",
        "OUTBOX_CONSOLE_USER_HEADER": "x-user",
        "OUTBOX_CONSOLE_PROXIES": "everywhere",
    }
    for name, value in wrong.items():
        with pytest.raises(SettingsError) as error:
            settings.read({**right, name: value})
        assert name in str(error.value) or name == "OUTBOX_CONSOLE_USER_HEADER"
        assert "hunter2" not in str(error.value)


def test_another_name_for_loopback_is_no_way_in(visit: Visit, outbox: str) -> None:
    """A page of another site cannot have its own name resolve to this machine and ask away."""
    browser = visit(configured(outbox))

    assert browser.get("/actions").status_code == 200
    assert browser.get("/actions", headers={"host": "evil.example"}).status_code == 403
    assert browser.get("/healthz", headers={"host": "127.0.0.1.evil.example"}).status_code == 403


def test_a_name_that_is_none_is_refused(visit: Visit, outbox: str) -> None:
    """In words, and not as a failure of the console that fills its log."""
    browser = visit(configured(outbox))

    assert browser.get("/actions", headers={"host": "["}).status_code == 403
    assert browser.post("/actions", headers={"origin": "http://["}).status_code == 403


def test_people_sign_in_with_a_password(visit: Visit, outbox: str, tmp_path: Path) -> None:
    """The right one opens, each time; none, a wrong one and an unknown name do not."""
    file = tmp_path / "people"
    file.write_text(PEOPLE)
    browser = visit(configured(outbox, OUTBOX_CONSOLE_PEOPLE_FILE=str(file)))
    tries = [None, ("ada", "wrong"), ("bob", "correct horse"), ("ada", "battery staple")]
    refused = [browser.get("/actions", auth=auth).status_code for auth in tries]
    opened = [browser.get("/actions", auth=("ada", "correct horse")) for _ in range(2)]

    assert refused == [401, 401, 401, 401]
    assert browser.get("/actions").headers["www-authenticate"].startswith("Basic ")
    assert [(page.status_code, "operator-with-payload" in page.text) for page in opened] == [
        (200, True)
    ] * 2
    assert browser.get("/healthz").status_code == 200  # for what keeps it running


def test_a_changed_file_of_people_counts_at_once(visit: Visit, outbox: str, tmp_path: Path) -> None:
    """Who is taken out is out; what is half written changes nothing."""
    file = tmp_path / "people"
    file.write_text(PEOPLE)
    browser = visit(configured(outbox, OUTBOX_CONSOLE_PEOPLE_FILE=str(file)))
    ada, eve = ("ada", "correct horse"), ("eve", "battery staple")
    before = [browser.get("/actions", auth=who).status_code for who in (ada, eve)]
    file.write_text("ada:operat")
    half = browser.get("/actions", auth=ada).status_code
    file.write_text("".join(line for line in PEOPLE.splitlines(True) if "ada" not in line))
    after = [browser.get("/actions", auth=who).status_code for who in (ada, eve)]

    assert (before, half, after) == ([200, 200], 200, [401, 200])


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"\xff:\xff").decode()],
)
def test_odd_credentials_are_none(visit: Visit, outbox: str, tmp_path: Path, header: str) -> None:
    """No traceback for a scanner."""
    file = tmp_path / "people"
    file.write_text(PEOPLE)
    browser = visit(configured(outbox, OUTBOX_CONSOLE_PEOPLE_FILE=str(file)))

    assert browser.get("/actions", headers={"authorization": header}).status_code == 401


def test_a_proxys_word_counts_only_from_the_proxy(visit: Visit, outbox: str) -> None:
    """The header names the person; from elsewhere, or without it, nobody gets in."""
    here = {"OUTBOX_CONSOLE_USER_HEADER": "X-User", "OUTBOX_CONSOLE_PROXIES": "127.0.0.0/8"}
    elsewhere = {**here, "OUTBOX_CONSOLE_PROXIES": "10.0.0.1"}
    ada = {"X-User": "ada@example.org"}
    known = visit(configured(outbox, **here))

    assert "ada@example.org" in known.get("/actions", headers=ada).text
    assert known.get("/actions").status_code == 403
    assert visit(configured(outbox, **elsewhere)).get("/actions", headers=ada).status_code == 403


def test_a_forged_form_changes_nothing(browse: Browse, outbox: str) -> None:
    """Without the token, with another's, from another site, without the cookie: refused."""
    bury(outbox, commit_rows(outbox, 1))
    browser, other = browse(outbox), browse(outbox)
    good = {"state": "dead", "row": "1", "newest": "9", "count": "1", "action": "discard"}
    token = _token(browser.get("/messages?state=dead").text)
    foreign = _token(other.get("/messages?state=dead").text)
    tries: list[tuple[dict[str, str], dict[str, str]]] = [
        (good, {}),
        ({**good, "token": ""}, {}),
        ({**good, "token": foreign}, {}),
        ({**good, "token": token}, {"cookie": "outbox_console=other"}),
        ({**good, "token": token}, {"origin": "https://evil.example"}),
        ({**good, "token": token}, {"sec-fetch-site": "cross-site"}),
        ({**good, "token": token}, {"sec-fetch-site": "same-site"}),
        ({**good, "token": token}, {"content-type": "text/plain"}),
    ]
    statuses = [browser.post("/actions", data=d, headers=h).status_code for d, h in tries]

    assert statuses == [403] * 7 + [415]
    assert browser.get("/actions/confirm").status_code == 405
    assert states(outbox)["dead"] == 1
    assert browser.post("/actions", data={**good, "token": token}).status_code == 200
    assert states(outbox)["dead"] == 0


def test_consoles_with_one_key_take_each_others_forms(visit: Visit, outbox: str) -> None:
    """As processes and replicas behind one address have to; without one none does."""
    key = {"OUTBOX_CONSOLE_KEY": "a key of sufficient length"}

    def answered(*keys: dict[str, str]) -> int:
        first, second = (
            visit(configured(outbox, OUTBOX_CONSOLE_ROLE="operator", **each)) for each in keys
        )
        bury(outbox, commit_rows(outbox, 1))
        page = first.get("/messages?state=dead")
        second.cookies.update(first.cookies)
        return second.submit(page, "/actions/confirm", "retry", all="1").status_code

    assert answered(key, key) == 200
    assert answered(key, {"OUTBOX_CONSOLE_KEY": "another key of that length"}) == 403
    assert answered({}, {}) == 403


def test_a_key_is_long_enough_and_never_repeated(tmp_path: Path) -> None:
    """Given itself or as a file; a refusal names the setting alone."""
    url = {"OUTBOX_DATABASE_URL": "postgresql://localhost/x"}
    file = tmp_path / "key"
    file.write_text("from a file, and long\n")

    assert settings.read({**url, "OUTBOX_CONSOLE_KEY_FILE": str(file)}).key.endswith("long")
    file.write_text("")
    for wrong in ({"OUTBOX_CONSOLE_KEY": "hunter2"}, {"OUTBOX_CONSOLE_KEY_FILE": str(file)}):
        with pytest.raises(SettingsError, match="OUTBOX_CONSOLE_KEY") as error:
            settings.read({**url, **wrong})
        assert "hunter2" not in str(error.value)


def test_a_browser_runs_nothing_but_ours(browse: Browse, ten: str) -> None:
    """A strict policy on every answer, no script or style within a page, cookies out of reach."""
    browser = browse(ten)
    for path in (*PAGES, "/messages/1", "/nothing", "/healthz"):
        page = browser.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", page.text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)
    cookie = browse(ten).get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    secure = browse(ten).get("/", headers={"x-forwarded-proto": "https"})
    assert "secure" in secure.headers["set-cookie"].lower()


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_no_payload_leaves_the_server_without_the_right(
    browse: Browse, ten: str, role: str
) -> None:
    """Every route there is, with every parameter that any page knows, errors included."""
    browser = browse(ten, role)
    part = SECRET[:-3]  # what is asked for stands on the page again: not the whole of it
    parameters = ["", f"text={part}", f"reason={part}", f"id={part}", f"task={part}", "after=1"]
    paths = [
        *(path for path in PAGES if "?" not in path),
        "/hour",
        *(f"/messages/{row}" for row in range(1, 11)),
        *(f"/find?id={row}" for row in range(1, 11)),
        *(f"/messages?state={state}&{p}" for state in BY_NAME for p in parameters),
    ]
    answers = [browser.get(path) for path in paths]
    for state in ("pending", "scheduled", "dead", "sent"):
        page = browser.get(f"/messages?state={state}")
        for action in ("cancel", "reschedule", "retry", "discard", "replay"):
            answers.append(browser.submit(page, "/actions/confirm", action, all="1"))
    with browser.stream("GET", "/events") as stream:
        line = next(stream.iter_lines())

    assert [str(each.url) for each in answers if SECRET in each.text] == []
    assert SECRET not in line
    assert SECRET in browse(ten).get("/messages/1").text  # the test can fail


def _token(page: str) -> str:
    found: list[str] = re.findall(r'name="token" value="([^"]+)"', page)
    return found[0]


def test_an_application_tells_people_apart(visit: Visit, outbox: str) -> None:
    """Mounted, it believes what the application says, and its links stay below the mount."""

    def who(connection: HTTPConnection) -> Person | None:
        name = connection.headers.get("x-session")
        return Person(name, "operator") if name else None

    app = Starlette(routes=[Mount("/ops/outbox", create_app(database_url=outbox, who=who))])
    commit_rows(outbox, 1)
    browser = visit(app)

    assert browser.get("/ops/outbox/").status_code == 403
    page = browser.get("/ops/outbox/messages", headers={"x-session": "grace"})
    assert "grace" in page.text
    links = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)
    assert links
    assert [link for link in links if not link.startswith("/ops/outbox/")] == []
    assert {
        browser.get(link, headers={"x-session": "grace"}).status_code
        for link in set(links)
        if "confirm" not in link
    } == {200}
