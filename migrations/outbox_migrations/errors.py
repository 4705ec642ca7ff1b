"""What can go wrong in a migration, said so that a person can act on it."""


class MigrationError(Exception):
    """Permanent: the migration did not run, or was rolled back whole."""


class InvalidSetting(MigrationError):
    """Permanent: a setting is missing or malformed; the message names it."""


class DatabaseUnreachable(MigrationError):
    """Transient: the database did not answer; nothing was changed."""
