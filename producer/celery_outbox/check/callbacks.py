"""`transaction.on_commit(…)`: what it will send, and whether the send can stand there instead."""

import ast
from dataclasses import dataclass

from celery_outbox.check import edits
from celery_outbox.check.finding import Edit
from celery_outbox.check.names import keyword, last
from celery_outbox.check.recognise import Meaning, Sent, reference, send
from celery_outbox.check.sameness import Moment, why_not
from celery_outbox.check.source import Source

#: The same method without its wait for the commit.
PLAIN = {"delay_on_commit": "delay", "apply_async_on_commit": "apply_async"}


@dataclass(frozen=True)
class Wrapped:
    """A send that is all that a callback does."""

    sent: Sent
    #: The node that stands for it in the listing.
    node: ast.expr
    reason: str
    edit: Edit | None


def is_on_commit(call: ast.Call, meaning: Meaning) -> bool | None:
    """Tell whether a call is Django's `on_commit`: certainly, by its name (False), or None."""
    if meaning.path(call.func) == "django.db.transaction.on_commit":
        return True
    return False if last(call.func) == "on_commit" and (call.args or call.keywords) else None


def callback(call: ast.Call) -> ast.expr | None:
    """Return what `on_commit` is given to call."""
    return call.args[0] if call.args else keyword(call, "func")


def unwrap(
    call: ast.Call, given: ast.expr, meaning: Meaning, here: Moment, source: Source
) -> Wrapped | None:
    """Return the one send that a callback consists of, or None if it is anything else."""
    found = _inner(given, meaning, source)
    if found is None:
        return None
    sent, node, inner, text = found
    reason = _against(call, inner, here)
    if reason is None:
        edit = edits.replacing(source, call, inner, new=text)
        if edit:
            return Wrapped(sent, node, "the wrapper can go: the row is sent after the commit", edit)
        reason = "it has a comment inside, or would not fit on its line"
    return Wrapped(sent, node, f"the wrapper can go, by hand: {reason}", None)


def plain(call: ast.Call, sent: Sent, here: Moment, source: Source) -> tuple[str, Edit | None]:
    """Return what to say of `delay_on_commit`, and the edit to `delay`."""
    name = PLAIN[sent.call]
    reason = _against(call, call, here)
    if reason is None and sent.thing.certain:
        edit = edits.renaming(source, call, name)
        return f"`{name}` does the same: the row is sent after the commit", edit
    reason = reason or "it cannot be told that this is a task"
    return f"`{name}` does the same, by hand: {reason}", None


def _inner(
    given: ast.expr, meaning: Meaning, source: Source
) -> tuple[Sent, ast.expr, ast.Call, str] | None:
    """Return the send, its node, the call to be made of it, and that call's source."""
    if isinstance(given, ast.Lambda):
        call = given.body
        if not isinstance(call, ast.Call) or _takes(given):
            return None
        sent = send(call, meaning)
        return (sent, call, call, source.segment(call)) if sent else None
    if isinstance(given, ast.Attribute):
        sent = reference(given, meaning)
        text = f"{source.segment(given)}()"
        call = ast.copy_location(ast.Call(given, [], []), given)
        return (sent, given, call, text) if sent else None
    if isinstance(given, ast.Call) and last(given.func) == "partial" and given.args:
        method = given.args[0]
        sent = reference(method, meaning) if isinstance(method, ast.Attribute) else None
        if sent is None:
            return None
        call = ast.copy_location(ast.Call(method, given.args[1:], given.keywords), method)
        return sent, method, call, source.segment(method) + _arguments(given, source)
    return None


def _takes(given: ast.Lambda) -> bool:
    """Tell whether a lambda has arguments: their defaults are evaluated at another time."""
    arguments = given.args
    return bool(arguments.args or arguments.kwonlyargs or arguments.vararg or arguments.kwarg)


def _arguments(partial: ast.Call, source: Source) -> str:
    """Return the arguments of a `partial` but the first, with their parentheses."""
    _, start = source.span(partial.args[0])
    _, end = source.span(partial)
    rest = source.text[start : end - 1].lstrip()
    return f"({rest.removeprefix(',').strip()})"


def _against(call: ast.Call, inner: ast.Call, here: Moment) -> str | None:
    """Return what is against the edit, or None."""
    if not (isinstance(here.statement, ast.Expr) and here.statement.value is call):
        return "what it returns is used"
    if call is not inner:
        if keyword(call, "using") or len(call.args) > 1:
            return "it names a database"
        if keyword(call, "robust"):
            return "with `robust` it outlives an error"
    for node in inner.args:
        if isinstance(node, ast.Starred):
            return "what is unpacked may change"
        if reason := why_not(node, here):
            return reason
    for given in inner.keywords:
        reason = "what is unpacked may change" if given.arg is None else why_not(given.value, here)
        if reason:
            return reason
    return None
