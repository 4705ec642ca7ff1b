"""A person, and the roles in the database that what they do is done with.

The page hides what a role may not; the database refuses it, because every statement runs with the
person's role and not with that of the console's login.
"""

from dataclasses import dataclass
from typing import Final

VIEWER: Final = "outbox_viewer"
READER: Final = "outbox_reader"
OPERATOR: Final = "outbox_operator"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is let in. `role` is one of `settings.ROLES`."""

    name: str
    role: str

    @property
    def sees_payload(self) -> bool:
        """Whether arguments, headers and bodies may be shown."""
        return self.role.endswith("-with-payload")

    @property
    def may_act(self) -> bool:
        """Whether messages may be changed."""
        return self.role.startswith("operator")

    @property
    def reads_as(self) -> str:
        """The database role of what is looked at."""
        return READER if self.sees_payload else VIEWER

    @property
    def acts_as(self) -> str:
        """The database role of what is done: without the right to act, one that is refused."""
        return OPERATOR if self.may_act else self.reads_as
