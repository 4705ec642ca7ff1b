"""What people are told when something cannot be done: what is wrong, and the way out."""


class SettingsError(Exception):
    """Permanent: a setting is wrong; the message names it. The console does not start."""


class Problem(Exception):
    """A page that cannot be shown, or an action that was not done: a status, and two sentences."""

    def __init__(self, status: int, title: str, remedy: str) -> None:
        super().__init__(f"{title}. {remedy}")
        self.status, self.title, self.remedy = status, title, remedy
