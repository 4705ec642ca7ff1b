"""A folder that is there is complete: it takes its name in one rename, after all is in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def completed(folder: Path) -> Iterator[Path]:
    """Yield a path to make, which becomes ``folder`` when the block ends without an error.

    What an interrupted attempt left is removed by the next one.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    yield unfinished
    unfinished.rename(folder)
