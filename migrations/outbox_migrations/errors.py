"""What can go wrong in a migration, said in one sentence that holds no password."""


class MigrationError(Exception):
    """Permanent: the migration did not run, or was rolled back whole."""


class InvalidSetting(MigrationError):
    """Permanent: a setting is missing or malformed; the message names it."""


class DatabaseUnreachable(MigrationError):
    """Transient: the database did not answer; nothing was changed."""


def first_line(error: Exception) -> str:
    """What a driver says first; further lines repeat rows and statements."""
    original = getattr(error, "orig", None) or error
    return str(original).strip().partition("\n")[0]
