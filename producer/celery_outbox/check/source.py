"""A file of Python, read once: its bytes, its text, its tree, and where in it a node stands."""

import ast
import io
import os
import re
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from celery_outbox.check.finding import Unread

#: What ends a line of Python. A form feed does not, though `str.splitlines` thinks so.
LINE_END: Final = re.compile(r"\r\n|\n|\r")
#: Folders that hold other people's code, or none.
SKIPPED: Final = frozenset({"node_modules", "site-packages", "__pycache__", "venv"})
BOM: Final = "\ufeff"


@dataclass(frozen=True)
class Source:
    """A file that can be parsed."""

    path: Path
    shown: str
    module: str
    content: bytes
    encoding: str
    #: Without the byte order mark, if there is one.
    text: str
    tree: ast.Module
    #: Where each line begins, in characters.
    starts: tuple[int, ...]

    def offset(self, line: int, column: int) -> int:
        """Return the character that stands at a line and a column as `ast` counts, in bytes."""
        start = self.starts[line - 1]
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return start + len(self.text[start:end].encode()[:column].decode())

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Return where a node begins and ends."""
        end_line, end_column = node.end_lineno, node.end_col_offset
        if end_line is None or end_column is None:
            raise ValueError("a node that was not parsed")
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def segment(self, node: ast.expr) -> str:
        """Return the source of a node."""
        start, end = self.span(node)
        return self.text[start:end]


def find(root: Path) -> list[Path]:
    """Return the Python files at or below `root`, without those of hidden folders and libraries."""
    if root.is_file():
        return [root]
    found: list[Path] = []
    for name_of_folder, folders, files in os.walk(root):
        folder = Path(name_of_folder)
        folders[:] = sorted(
            name
            for name in folders
            if name not in SKIPPED
            and not name.startswith(".")
            and not (folder / name / "pyvenv.cfg").exists()
        )
        found += (folder / name for name in sorted(files) if name.endswith(".py"))
    return found


def read(path: Path, root: Path) -> Source | Unread:
    """Read and parse a file, or say why not."""
    shown = str(path)
    try:
        content = path.read_bytes()
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
        tree = ast.parse(text.removeprefix(BOM), filename=shown)
    except OSError as error:
        return Unread(shown, f"cannot be read: {error.strerror}")
    except SyntaxError as error:
        place = f" in line {error.lineno}" if error.lineno else ""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        return Unread(shown, f"cannot be parsed by Python {version}: {error.msg}{place}")
    except (UnicodeDecodeError, ValueError, RecursionError, MemoryError) as error:
        return Unread(shown, f"cannot be parsed: {type(error).__name__}")
    text = text.removeprefix(BOM)
    starts = [0, *(end.end() for end in LINE_END.finditer(text))]
    return Source(path, shown, module_of(path, root), content, encoding, text, tree, tuple(starts))


def module_of(path: Path, root: Path) -> str:
    """Return the name a file is imported by, as far as packages and the root tell."""
    path = path.parent.resolve() / path.name  # a link is imported where it is, not where it leads
    base = path.parent
    if (base / "__init__.py").exists():
        while (base / "__init__.py").exists() and base.parent != base:
            base = base.parent
    else:
        base = (root if root.is_dir() else root.parent).resolve()
    parts = list(path.relative_to(base).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts[1:] if parts[0] == "src" and len(parts) > 1 else parts)
