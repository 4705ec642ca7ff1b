"""What stops the relay for good, and what it waits out.

Transient errors cost no message an attempt; permanent ones end the process with a sentence.
"""


class RelayError(Exception):
    """Base of everything the relay raises on purpose."""


class SettingsError(RelayError):
    """Permanent: a setting is missing or malformed; the message names it."""


class SchemaError(RelayError):
    """Permanent: the tables are missing, of another version, or not ours to use."""


class StoreLost(RelayError):
    """Transient: the database went away or did not answer in time."""


class StatementFailed(StoreLost):
    """Transient: the database is there and refused one statement.

    `row_fault` is set where it failed over what one row holds: it will again, and others will not.
    """

    def __init__(self, reason: str, *, row_fault: bool = False) -> None:
        super().__init__(reason)
        self.row_fault = row_fault


class BrokerLost(RelayError):
    """Transient: the broker went away, refused the connection or did not answer in time.

    `poison` is set where the broker closed the channel or connection over something we sent. One of
    the messages in flight may be the cause, and all of them are poison suspects. `silent` is set
    where it took messages, and confirmed none in time: another node of it may do better.
    """

    def __init__(self, reason: str, *, poison: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.poison = poison
        self.silent = silent


class Unpublishable(RelayError):
    """Permanent for one message: no broker could take it as it is written."""


class Denied(Unpublishable):
    """Permanent for one message, until the setting it names is changed."""


class Unanswered(RelayError):
    """Transient for one route: its queue, or the node that has it, did not answer in time."""
