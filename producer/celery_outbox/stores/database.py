"""The database that the app or its environment names, for what joins no transaction of its sender.

Django's, where one is in use, else the one of OUTBOX_DATABASE_URL.
"""

from typing import TYPE_CHECKING, Protocol

from celery import Celery

from celery_outbox import settings
from celery_outbox.errors import InvalidSetting
from celery_outbox.message import Message, Parcel
from celery_outbox.statements.commands import Outcome

if TYPE_CHECKING:
    from celery_outbox.stores.django import DjangoStore
    from celery_outbox.stores.standalone import Standalone


class Store(Protocol):
    """A database that takes messages for which no transaction was named."""

    def store(self, message: Parcel) -> Outcome:
        """Store a message: durable on return, or with the transaction that is in progress there.

        Only Django's connection, which it shares with its project, can be in one.
        """

    def store_apart(self, message: Parcel) -> Outcome:
        """Store a message in a transaction that nothing in progress can roll back."""

    def store_once(self, message: Message, seconds: float) -> Outcome:
        """Do the same, but not if an attempt of the last `seconds` has, whatever came of it."""

    def is_alone(self) -> bool:
        """Tell whether what `store` stores now is in a transaction of its own."""


class Database:
    """The `Store` that is configured. One per app; threads share it."""

    def __init__(self, app: Celery, schema: str) -> None:
        self._app = app
        self._schema = schema
        self._standalone: dict[str, Standalone] = {}  # of the URL in force

    def check(self) -> None:
        """Raise InvalidSetting for what names no database that could be used."""
        if self._django() is None or self._url_comes_first():
            self._of_url()

    def is_configured(self) -> bool:
        """Tell whether there is one."""
        return settings.names_database_url(self._app) or self.uses_django

    def store(self, message: Parcel) -> Outcome:
        """Store a message. See `Store`."""
        found: Store = self._django() or self._required()
        return found.store(message)

    def put_many(self, message: Parcel) -> Outcome:
        """Store one of many messages, or buffer it for the transaction that is in progress."""
        django = self._django()
        return self.store(message) if django is None else django.put_many(message)

    def flush(self) -> None:
        """Store what is buffered."""
        if (django := self._django()) is not None:
            django.flush()

    def store_apart(self, message: Parcel) -> Outcome:
        """Store a message in a transaction of its own. See `Store`."""
        return self._apart().store_apart(message)

    def store_once(self, message: Message, seconds: float) -> Outcome:
        """Store a message in a transaction of its own, once. See `Store`."""
        return self._apart().store_once(message, seconds)

    def is_alone(self) -> bool:
        """Tell whether what is stored now is in a transaction of its own. See `Store`."""
        django = self._django()
        return django is None or django.is_alone()

    @property
    def uses_django(self) -> bool:
        """Whether `store` uses the connection of a Django project, with its transactions."""
        return settings.django_alias(self._app) is not None

    def _apart(self) -> Store:
        return (None if self._url_comes_first() else self._django()) or self._required()

    def _url_comes_first(self) -> bool:
        """Tell whether Celery's own configuration names a database, for what is stored apart."""
        return bool(self._app.conf.get("outbox_database_url"))

    def _django(self) -> "DjangoStore | None":
        alias = settings.django_alias(self._app)
        if alias is None:
            return None
        from celery_outbox.stores.django import DjangoStore

        return DjangoStore(alias, self._schema)

    def _required(self) -> "Standalone":
        found = self._of_url()
        if found is None:  # not unless it went between deciding and storing
            raise InvalidSetting.about(setting="OUTBOX_DATABASE_URL", problem="is no longer set")
        return found

    def _of_url(self) -> "Standalone | None":
        url = settings.database_url(self._app)
        if url is None:
            return None
        by_url = self._standalone
        if url not in by_url:
            try:
                from celery_outbox.stores.standalone import Standalone
            except ImportError as error:
                raise InvalidSetting.about(
                    setting="OUTBOX_DATABASE_URL (outbox_database_url)",
                    problem=f"needs psycopg: pip install 'celery-outbox[psycopg]' ({error})",
                ) from error

            # Threads that come here at one moment get the same one: a second would connect again.
            by_url = self._standalone = {url: by_url.setdefault(url, Standalone(url, self._schema))}
        return by_url[url]
