"""What --fix changes: the characters of one call, and not a byte elsewhere.

An edit is made only if the file, parsed again, is the same tree with that one call replaced.
"""

import ast
import contextlib
import difflib
import io
import os
import tempfile
import tokenize
from collections.abc import Sequence
from pathlib import Path

from celery_outbox.check.finding import Edit, Unread
from celery_outbox.check.source import BOM, Source


def replacing(source: Source, outer: ast.Call, inner: ast.Call, *, new: str) -> Edit | None:
    """Return the edit that puts `new`, which is `inner`, in the place of `outer`."""
    start, end = source.span(outer)
    if _has_comment(source.text[start:end]):
        return None
    for text in (_dedented(source, outer, inner, new), new):
        edit = Edit(start, end, text)
        if _is_only(source, outer, inner, edit):
            return edit
    return None


def renaming(source: Source, call: ast.Call, name: str) -> Edit | None:
    """Return the edit that calls another method of the same name's owner."""
    if not isinstance(call.func, ast.Attribute):
        return None
    _, end = source.span(call.func)
    start = end - len(call.func.attr)
    return Edit(start, end, name) if source.text[start:end] == call.func.attr else None


def applied(text: str, edits: Sequence[Edit]) -> str:
    """Return a text with edits that do not overlap."""
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def diff(source: Source, edits: Sequence[Edit]) -> str:
    """Return what the edits change, as a unified diff."""
    before, after = source.text, applied(source.text, edits)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        fromfile=source.shown,
        tofile=source.shown,
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def write(source: Source, edits: Sequence[Edit]) -> Unread | None:
    """Write a file anew, whole or not at all, or say why it was left alone."""
    marked = source.content.startswith(b"\xef\xbb\xbf")
    encoding = "utf-8" if source.encoding == "utf-8-sig" else source.encoding
    prefix = BOM if marked else ""
    if (prefix + source.text).encode(encoding) != source.content:
        return Unread(source.shown, "left alone: its encoding does not survive")
    path = source.path.resolve()
    new = (prefix + applied(source.text, edits)).encode(encoding)
    try:
        if path.read_bytes() != source.content:
            return Unread(source.shown, "left alone: it has changed since it was read")
        _put(path, new)
    except OSError as error:
        return Unread(source.shown, f"left alone: it cannot be written: {error.strerror}")
    return None


def _put(path: Path, content: bytes) -> None:
    """Replace a file, which keeps its permissions."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).chmod(path.stat().st_mode)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _has_comment(text: str) -> bool:
    """Tell whether something would be lost that is no code."""
    tokens = tokenize.generate_tokens(io.StringIO(f"({text})").readline)
    return any(token.type == tokenize.COMMENT for token in tokens)


def _dedented(source: Source, outer: ast.Call, inner: ast.Call, new: str) -> str:
    """Return the new text with its later lines as far to the left as the first one moves."""
    first, later = (_indent(source, node.lineno) for node in (outer, inner))
    if not later.startswith(first):
        return new
    surplus = later[len(first) :]
    head, *lines = new.split("\n")
    moved = [
        first + line[len(first + surplus) :] if line.startswith(later) else line for line in lines
    ]
    return "\n".join([head, *moved])


def _indent(source: Source, line: int) -> str:
    rest = source.text[source.starts[line - 1] :]
    return rest[: len(rest) - len(rest.lstrip(" \t"))]


def _is_only(source: Source, outer: ast.Call, inner: ast.Call, edit: Edit) -> bool:
    """Tell whether an edit makes the tree with `inner` in the place of `outer`, and no other."""

    class Replace(ast.NodeTransformer):
        def visit_Call(self, node: ast.Call) -> ast.AST:
            if (node.lineno, node.col_offset) == place and ast.dump(node) == wanted:
                return inner
            return self.generic_visit(node)

    place, wanted = (outer.lineno, outer.col_offset), ast.dump(outer)
    expected = Replace().visit(ast.parse(source.text))
    try:
        found = ast.parse(applied(source.text, [edit]))
    except SyntaxError:
        return False
    return ast.dump(found) == ast.dump(expected)
