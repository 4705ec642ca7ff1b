"""The order of the site: tutorial, how-to, reference, explanation. A test keeps it whole.

A page is named as on the site; those made from code are given to `navigation`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

Entry = str | dict[str, Any]

TUTORIAL: Final[list[Entry]] = ["from-plain-celery.md"]
HOW_TO: Final[list[Entry]] = [
    {
        "Where you send": [
            "how-to/psycopg.md",
            "how-to/sqlalchemy.md",
            "how-to/fastapi.md",
            "how-to/flask.md",
            "how-to/django.md",
            "how-to/django-tasks.md",
            "how-to/beat.md",
            "how-to/sql.md",
        ]
    },
    {
        "What you send": [
            "how-to/exactly-once.md",
            "how-to/order.md",
            "how-to/events.md",
            "how-to/revoke.md",
            "how-to/check.md",
            "how-to/testing.md",
            "how-to/tracing.md",
        ]
    },
    {"The tables": ["how-to/migrations.md", "how-to/moving.md"]},
    {
        "In production": [
            "deploy.md",
            "rollout.md",
            "operations.md",
            "how-to/many-outboxes.md",
            "console.md",
            "where-is-my-task.md",
            "queries.md",
        ]
    },
]
REFERENCE: Final[list[Entry]] = [
    "commands.md",
    "compatibility.md",
    "ecosystem.md",
    "glossary.md",
    "licences.md",
    "changes.md",
]
EXPLANATION: Final[list[Entry]] = [
    "architecture.md",
    "guarantees.md",
    "faults.md",
    "redis-or-rabbitmq.md",
    "scaling.md",
    "performance.md",
    "security.md",
]
PROJECT: Final[list[Entry]] = ["contributing.md", "releasing.md", "fixed-faults.md"]


def navigation(
    packages: Sequence[str],
    api: Sequence[str],
    settings: Sequence[str],
    errors: Sequence[Entry],
    decisions: Sequence[str],
) -> list[Entry]:
    """The whole of it, with the pages of each kind that has a folder of its own."""
    return [
        {"Start": ["index.md", *TUTORIAL]},
        {"How to": HOW_TO},
        {
            "Reference": [
                *REFERENCE[:1],
                {"Settings": list(settings)},
                {"Errors": list(errors)},
                {"Python": list(api)},
                {"Packages": list(packages)},
                *REFERENCE[1:],
            ]
        },
        {"Explanation": [*EXPLANATION, {"Decisions": list(decisions)}]},
        {"Project": PROJECT},
    ]


def pages(entries: Sequence[Entry]) -> Iterator[str]:
    """Every page that an order names."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values():
                yield from pages([below] if isinstance(below, str) else below)
