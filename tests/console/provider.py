"""A small provider of OpenID Connect, which signs tokens as a real one does."""

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

SECRET = "a-client-secret-of-some-length"


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
