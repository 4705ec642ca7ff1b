"""The programs that this tool needs and nothing else does: Node to draw, a Chromium to look."""

import shutil
from dataclasses import dataclass
from typing import Self

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class ProgramMissing(RuntimeError):
    """A program is not on PATH; the message says which and how to get it."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of this machine, by their paths."""

    node: str
    npm: str
    browser: str

    @classmethod
    def found(cls) -> Self:
        """All of them, or ProgramMissing for those that are not there."""
        node, npm = shutil.which("node"), shutil.which("npm")
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if node and npm and browser:
            return cls(node, npm, browser)
        missing = []
        if not node or not npm:
            missing.append("Node 20 or newer with npm (apt-get install nodejs npm)")
        if not browser:
            missing.append("a Chromium (apt-get install chromium)")
        raise ProgramMissing(
            f"The picture of the dashboard needs {' and '.join(missing)}; nothing else does."
        )
