"""What only RabbitMQ's publisher, and only its check, can be told."""

import re
from typing import Final

from outbox_relay.errors import SettingsError
from outbox_relay.settings.setting import Setting

#: With these a row would reach further than its columns say: RabbitMQ also routes by the headers CC
#: and BCC, and vouches for the property user_id, which can only be the relay's own.
RESERVED: Final = frozenset({"CC", "BCC", "user_id"})


def reserved_but(text: str) -> frozenset[str]:
    """The reserved names that remain when those in `text` are allowed."""
    allowed = {name for each in text.split(",") if (name := each.strip())}
    if unknown := allowed - RESERVED:
        raise ValueError(f"{min(unknown)!r} is not reserved; {', '.join(sorted(RESERVED))} are")
    return RESERVED - allowed


def management_url(text: str) -> str | None:
    """The address of RabbitMQ's management API; nothing from nothing."""
    if text and not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", text):
        # Not a ValueError: the text may hold a password and must not be repeated.
        raise SettingsError("OUTBOX_MANAGEMENT_URL: give http://host:15672, without a password")
    return text.rstrip("/") or None


ALLOW_RESERVED: Final = Setting(
    "OUTBOX_ALLOW_RESERVED",
    reserved_but,
    "",
    "of the headers `CC` and `BCC` and the property `user_id`, those that rows may set",
    shown_default="none",
)
MANAGEMENT_URL: Final = Setting(
    "OUTBOX_MANAGEMENT_URL",
    management_url,
    "",
    "RabbitMQ's management API, for `doctor`",
    shown_default="the broker's host, port 15672",
    note="Such as `http://rabbitmq:15672`",
)
