"""Whether the makers of Postgres still mend the version that keeps the outbox."""

from datetime import date
from typing import Final

from outbox_relay.core import versions
from outbox_relay.core.finding import Finding
from outbox_relay.operator.session import Session

VERSION: Final = "SELECT current_setting('server_version')"


def check(session: Session) -> list[Finding]:
    """Judge the server that is asked."""
    return [versions.postgres(str(session.value(VERSION)), date.today())]
