"""A clock that a test can move, for one process: libfaketime, which reads an offset from a file.

Only the time of day moves. What measures durations (CLOCK_MONOTONIC) goes on as ever, as it does on
a machine whose clock is set.
"""

import shutil
from pathlib import Path
from typing import Final

from servers import debian

BUNDLE: Final = debian.Bundle(
    title="libfaketime",
    package="libfaketime",
    prefixes=("libfaketime",),
    way_out="Do without: the tests of moved clocks are skipped.",
)


class Clock:
    """Shows the real time, plus an offset that may change."""

    def __init__(self, folder: Path) -> None:
        """Prepare it in a folder that whoever uses the clock may read."""
        root = debian.CACHE / BUNDLE.folder
        if not root.exists():
            root = debian.fetch(debian.CACHE, BUNDLE)
        [library] = root.glob("usr/lib/*/faketime/libfaketime.so.1")
        self._library = Path(shutil.copy(library, folder))
        self._library.chmod(0o755)
        self._file = folder / "offset"
        self.move(0)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to be shown this clock."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def move(self, seconds: int) -> None:
        """Show that many seconds more, or fewer, than it is."""
        self._file.write_text(f"{seconds:+d}\n")
        self._file.chmod(0o644)
