"""The database that holds the inbox: the outbox' own, or another one by OUTBOX_INBOX_URL."""

from collections.abc import Iterator
from contextlib import contextmanager

from outbox_relay.operator.session import APPLICATION_NAME, Session
from outbox_relay.postgres.database import connect
from outbox_relay.settings import Settings


def open_inbox(settings: Settings, name: str = APPLICATION_NAME) -> Session:
    """A session of its own, wherever the inbox is. Raises StoreLost."""
    elsewhere = settings.inbox_url.read()
    url = elsewhere or settings.database_url.read()
    connection = connect(url, name, settings.statement_timeout)
    return Session(connection, settings.schema, "inbox_worker" if elsewhere else "outbox_relay")


@contextmanager
def inbox_of(
    outbox: Session, settings: Settings, name: str = APPLICATION_NAME
) -> Iterator[Session]:
    """The outbox' session where it has the inbox too, else another one. Raises StoreLost."""
    if not settings.inbox_url.read():
        yield outbox
        return
    with open_inbox(settings, name) as inbox:
        yield inbox
