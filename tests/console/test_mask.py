"""The mask: what a page shows of a payload has gone through it, and no search tells the rest."""

import base64
import json
import re
from collections.abc import Callable

import kombu.utils.json
import pytest

from outbox_console import create_app, settings
from outbox_console.app import serve_app
from outbox_console.errors import SettingsError
from outbox_console.mask import CUT, FAILED
from outbox_console.outbox.states import BY_NAME
from outbox_console.shown import words
from tests.console.conftest import SECRET, Browser
from tests.fixtures.rows import commit_rows

Visit = Callable[..., Browser]


def stars(task: str, part: str, text: str) -> str:
    """Hides the secret."""
    assert task
    assert part in ("args", "kwargs", "headers", "properties", "declare", "body")
    return text.replace(SECRET, "***")


def test_what_is_shown_has_gone_through_the_mask(visit: Visit, ten: str) -> None:
    """In each list and on each message's page, each part of it."""
    app = create_app(database_url=ten, role="operator-with-payload", mask=stars)
    browser = visit(app)
    pages = [f"/messages?state={state}" for state in BY_NAME]
    pages += [f"/messages/{row}" for row in range(1, 11)]
    texts = {path: browser.get(path).text for path in pages}

    assert [path for path, text in texts.items() if SECRET in text] == []
    assert texts["/messages/1"].count("***") >= 4
    assert "***" in texts["/messages?state=dead"]


def test_no_search_tells_what_is_hidden(visit: Visit, ten: str) -> None:
    """Neither a list nor the count of an action."""
    app = create_app(database_url=ten, role="operator-with-payload", mask=stars)
    browser = visit(app)
    page = browser.get("/messages?state=dead")
    asked = browser.submit(page, "/actions/confirm", "retry", all="1", text=SECRET)

    assert "Arguments contain" not in page.text
    assert browser.get(f"/messages?state=dead&text={SECRET}").status_code == 403
    assert asked.status_code == 403


def test_a_mask_that_fails_shows_nothing(visit: Visit, ten: str) -> None:
    """Neither the text nor the error, which may repeat it."""

    def broken(task: str, part: str, text: str) -> str:
        raise ValueError(text)

    page = visit(create_app(database_url=ten, role="viewer-with-payload", mask=broken))
    text = page.get("/messages/1").text

    assert SECRET not in text
    assert len(re.findall(re.escape(FAILED), text)) == 4


#: A secret that ends where something is cut: its beginning would be there, and no mask knows it.
PART = SECRET[:8]
BODIES = {
    "bytes": b"\xff\xfe" + SECRET.encode(),
    "no json": f"args: [{SECRET}]".encode(),
    "escaped": json.dumps([[SECRET], {}, {}]).replace("_", "\\u005f").encode(),
    "cut on the page": json.dumps(["x" * (words.MAX_SHOWN - 20) + SECRET]).encode(),
    "cut by the database": json.dumps(["x" * (65536 - 12) + SECRET]).encode(),
    "bytes within": kombu.utils.json.dumps([b"\xff" + SECRET.encode()]).encode(),
    "deep": b"[" * 20_000 + SECRET.encode() + b"]" * 20_000,
}


@pytest.mark.parametrize("body", BODIES)
def test_no_body_gets_past_the_mask(visit: Visit, outbox: str, body: str) -> None:
    """Neither encoded, nor escaped, nor cut in the middle of what is hidden."""
    commit_rows(outbox, 1, body=BODIES[body])
    app = create_app(database_url=outbox, role="viewer-with-payload", mask=stars)

    page = visit(app).get("/messages/1")

    shown = re.findall(r"(?s)<h2>Body</h2><pre[^>]*>(.*?)</pre>", page.text)[0]
    assert page.status_code == 200
    assert PART not in shown
    for shift in range(3):  # wherever base64 begins to count
        encoded = base64.b64encode(b"x" * shift + SECRET.encode())[4:-4].decode()
        assert encoded not in shown


@pytest.mark.parametrize("length", [195, 1020])
def test_arguments_that_were_cut_are_not_shown(visit: Visit, outbox: str, length: int) -> None:
    """The views cut them, and so do Celery and `outbox.enqueue`: in lists, and within headers."""
    cut = ("('" + "x" * length + SECRET)[:1024]
    dotted = f"('{SECRET[:9]}...',)"
    headers = {"task": "shop.bill", "argsrepr": cut, "kwargsrepr": dotted}
    commit_rows(outbox, 1, headers=json.dumps(headers), body=b"[[], {}, {}]")
    browser = visit(create_app(database_url=outbox, role="viewer-with-payload", mask=stars))

    for path in ("/messages?state=pending", "/messages/1"):
        page = browser.get(path)
        assert page.status_code == 200
        assert PART not in page.text
        assert CUT in page.text


@pytest.mark.parametrize("place", ["nowhere:mask", "json:nothing", "json", "json:__name__"])
def test_a_mask_that_is_none_is_refused_at_the_start(place: str) -> None:
    """Named by its setting: nothing is shown unmasked by mistake."""
    values = {"OUTBOX_DATABASE_URL": "postgresql:///x", "OUTBOX_CONSOLE_MASK": place}
    with pytest.raises(SettingsError, match="OUTBOX_CONSOLE_MASK"):
        serve_app(settings.read(values))
