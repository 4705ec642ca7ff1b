"""Who comes in with OpenID Connect, and as what: the settings, and what a provider may claim."""

from typing import Any

import pytest

from outbox_console import settings
from outbox_console.errors import SettingsError
from outbox_console.people.openid import NotLetIn, word
from outbox_console.people.person import Person
from outbox_console.settings import OpenId
from tests.console.provider import SECRET, environment


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


def person(claims: dict[str, Any], given: OpenId) -> Person:
    """Who the claims are about, by these settings."""
    return word(claims, given).person(given)


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
