"""Passwords as scrypt hashes. Comparing takes the same time whatever is wrong.

A hash is `scrypt:salt:key`, both as hexadecimal digits; `outbox-console password` makes one.
"""

import hashlib
import hmac
import secrets
from typing import Final

_COST: Final = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}


def hashed(password: str) -> str:
    """A hash to put into the file of people."""
    salt = secrets.token_bytes(16)
    return f"scrypt:{salt.hex()}:{_key(password, salt).hex()}"


def is_hash(text: str) -> bool:
    """Whether a text can be compared with a password at all."""
    kind, _, rest = text.partition(":")
    salt, _, key = rest.partition(":")
    try:
        return kind == "scrypt" and len(bytes.fromhex(salt)) >= 8 and len(bytes.fromhex(key)) == 32
    except ValueError:
        return False


def matches(password: str, known: str) -> bool:
    """Whether the password is that of a hash."""
    _, salt, key = known.split(":")
    return hmac.compare_digest(_key(password, bytes.fromhex(salt)), bytes.fromhex(key))


def _key(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_COST)
