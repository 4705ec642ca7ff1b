"""The brokers of OUTBOX_BROKER_URL, each in turn: reachable, and safe to leave messages with."""

from collections.abc import Sequence
from typing import Final

from outbox_relay.broker.registry import broker_of
from outbox_relay.core.finding import Finding, ok, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.errors import BrokerLost, SettingsError
from outbox_relay.operator.doctor.causes import BROKER, remedy
from outbox_relay.settings import Settings

NAME: Final = "broker"
VARIABLE: Final = "OUTBOX_BROKER_URL"
ROUTE: Final = "route"


def check(settings: Settings, routes: Sequence[Route] | None) -> list[Finding]:
    """Every broker; one that is away is a problem unless another stands in for it.

    Where the messages go is None where the database could not be asked.
    """
    urls = [url.strip() for url in settings.broker_url.read().split(";") if url.strip()]
    if not urls:
        return [problem(NAME, f"{VARIABLE} is not set", f"set it, or {VARIABLE}_FILE")]
    findings: list[Finding] = []
    lost: list[BrokerLost] = []
    for url in urls:
        try:
            findings += broker_of(url).check(url, settings, routes or ())
        except BrokerLost as error:
            lost.append(error)
        except SettingsError as error:
            findings.append(problem(NAME, str(error), f"correct {VARIABLE}"))
    if not routes:
        findings.append(_no_route(routes))
    level = problem if len(lost) == len(urls) else warn
    return [
        *(level(NAME, str(error), remedy(BROKER, str(error), VARIABLE)) for error in lost),
        *findings,
    ]


def _no_route(routes: Sequence[Route] | None) -> Finding:
    if routes is None:
        return warn(
            ROUTE,
            "where messages go is not known, as the database could not be asked: not checked",
            "fix what is wrong with the database, then run doctor again",
        )
    return ok(ROUTE, "nothing is pending and nothing was sent: no route to check")
