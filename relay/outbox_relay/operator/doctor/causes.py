"""From the words of a failed connection to what to do about it. Pure; the first match counts."""

from collections.abc import Sequence
from typing import Final

#: Words as they appear in the error, in lower case, and the way out.
Causes = Sequence[tuple[tuple[str, ...], str]]

_NETWORK: Final[Causes] = (
    (
        ("connection refused",),
        "nothing listens there: start the server, or correct host and port in {variable}",
    ),
    (
        ("not known", "resolve", "no address", "temporary failure in name"),
        "the host name does not resolve: correct it in {variable}, or fix DNS",
    ),
    (
        ("timed out", "timeout", "unreachable", "no route to host"),
        "it does not answer: look at firewalls and security groups between here and there, and "
        "whether the server is frozen",
    ),
    (
        ("certificate", "ssl", "tls"),
        "TLS failed: check the certificate's name and authority, and the options in {variable}",
    ),
)

DATABASE: Final[Causes] = (
    (
        ("password authentication failed", "no password supplied"),
        "wrong user or password: correct {variable} (or the file {variable}_FILE names)",
    ),
    (
        ("does not exist",),
        "create it, or correct the name in {variable}",
    ),
    (
        ("no pg_hba.conf entry", "not permitted", "is not allowed"),
        "allow this host and user in pg_hba.conf, or ask for the right network and sslmode",
    ),
    (
        ("too many clients", "remaining connection slots", "too many connections"),
        "all connections are taken: find who holds them in pg_stat_activity, or raise "
        "max_connections",
    ),
    (
        ("starting up", "shutting down", "recovery"),
        "wait for the server: it is starting, stopping or recovering",
    ),
    *_NETWORK,
)

BROKER: Final[Causes] = (
    (
        ("access_refused", "access refused", "wrongpass", "noauth", "invalid username",
         "authentication", "invalid password", "login was refused"),
        "wrong user or password: correct {variable} (or the file {variable}_FILE names), or set "
        "the password with: rabbitmqctl change_password USER NEW (Redis: ACL SETUSER)",
    ),
    (
        ("not_allowed", "not allowed", "vhost"),
        "the virtual host is missing, or not this user's: rabbitmqctl add_vhost VHOST; "
        "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
    ),
    *_NETWORK,
)  # fmt: skip


def remedy(causes: Causes, words: str, variable: str) -> str:
    """What to do about a connection that failed with these words."""
    lower = words.lower()
    for needles, advice in causes:
        if any(needle in lower for needle in needles):
            return advice.format(variable=variable)
    return f"check the server's log, and {variable}"
