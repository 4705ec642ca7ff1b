"""The listing for people, 80 columns wide where names allow, and the document for programs."""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence

from celery_outbox.check.finding import Certainty, Finding, Outcome, Unread

WIDTH = 80


def listing(found: Sequence[Finding], unread: Sequence[Unread], requests: str | None) -> str:
    """Return all findings, by file, and a summary."""
    lines: list[str] = []
    path = ""
    for finding in found:
        if finding.path != path:
            path = finding.path
            lines += ["", path] if lines else [path]
        lines += _entry(finding)
    if unread:
        lines += ["", "Not read:"] if lines else ["Not read:"]
        lines += [f"  {file.path}: {file.reason}" for file in unread]
    lines += ["", *_summary(found)] if lines else _summary(found)
    if requests and any(finding.outcome is Outcome.NONE_IN_SIGHT for finding in found):
        text = (
            f"ATOMIC_REQUESTS is named at {requests}. Where it is on, what a view sends joins the"
            " transaction of its request, which the source of the view does not show."
        )
        lines += textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) + "\n"


def document(found: Sequence[Finding], unread: Sequence[Unread], requests: str | None) -> str:
    """Return the same as JSON."""
    return json.dumps(
        {
            "sends": [
                {
                    "path": finding.path,
                    "line": finding.line,
                    "column": finding.column,
                    "call": finding.call,
                    "task": finding.task,
                    "outcome": finding.outcome,
                    "certainty": finding.certainty,
                    "reason": finding.reason,
                    "lock": finding.lock,
                    "fixable": finding.edit is not None,
                }
                for finding in found
            ],
            "unread": [{"path": file.path, "reason": file.reason} for file in unread],
            "atomic_requests": requests,
        },
        indent=2,
    )


def _entry(finding: Finding) -> list[str]:
    """Return the lines of one send."""
    task = finding.task or "(task not told)"
    mark = "" if finding.certainty is Certainty.CERTAIN else f"  ({finding.certainty})"
    if finding.outcome is Outcome.UNKNOWN:
        mark = ""
    start = f"{finding.line:>6}  {finding.outcome:<13}  {finding.call}"
    indent = " " * 8
    first = [f"{start} {task}{mark}"]
    if len(first[0]) > WIDTH:
        first = [f"{start}{mark}", f"{indent}{task}"]
    reasons = [finding.reason] + ([f"lock: {finding.lock}"] if finding.lock else [])
    if finding.edit:
        reasons[0] += " (--fix)"
    wrapped = [
        line
        for reason in reasons
        for line in textwrap.wrap(
            reason,
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
    return [*first, *wrapped]


def _summary(found: Sequence[Finding]) -> list[str]:
    """Return how many there are of each."""
    if not found:
        return ["No sends."]
    counts = Counter(finding.outcome for finding in found)
    look = sum(not finding.settled for finding in found)
    parts = ", ".join(f"{counts[kind]} {kind}" for kind in Outcome if counts[kind])
    locks = sum(finding.lock is not None for finding in found)
    locked = f"; {locks} with a lock" if locks else ""
    count = f"{len(found)} send{'s' if len(found) > 1 else ''}"
    text = f"{count}: {parts}{locked}. To look at: {look}."
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False)
