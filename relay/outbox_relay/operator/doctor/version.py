"""Whether the makers of Postgres still fix the version that keeps the outbox."""

from datetime import date
from typing import Final

from outbox_relay.core import versions
from outbox_relay.core.finding import Finding
from outbox_relay.operator.doctor.context import Context

VERSION: Final = "SELECT current_setting('server_version')"


def check(context: Context) -> list[Finding]:
    """Judge the server that is asked."""
    return [versions.postgres(str(context.session.value(VERSION)), date.today())]
