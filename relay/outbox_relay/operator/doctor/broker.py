"""The brokers of OUTBOX_BROKER_URL, each in turn: reachable, and safe to leave messages with."""

from collections.abc import Sequence
from typing import Final

from outbox_relay.broker.registry import broker_of
from outbox_relay.core.finding import Finding, problem, warn
from outbox_relay.core.route import Route
from outbox_relay.errors import BrokerLost, SettingsError
from outbox_relay.operator.doctor.causes import BROKER, remedy
from outbox_relay.settings import Settings

NAME: Final = "broker"
VARIABLE: Final = "OUTBOX_BROKER_URL"


def check(settings: Settings, routes: Sequence[Route]) -> list[Finding]:
    """Every broker; one that is away is a problem unless another stands in for it."""
    urls = [url.strip() for url in settings.broker_url.read().split(";") if url.strip()]
    if not urls:
        return [problem(NAME, f"{VARIABLE} is not set", f"set it, or {VARIABLE}_FILE")]
    findings: list[Finding] = []
    lost: list[BrokerLost] = []
    for url in urls:
        try:
            findings += broker_of(url).check(url, settings, routes)
        except BrokerLost as error:
            lost.append(error)
        except SettingsError as error:
            findings.append(problem(NAME, str(error), f"correct {VARIABLE}"))
    level = problem if len(lost) == len(urls) else warn
    return [
        *(level(NAME, str(error), remedy(BROKER, str(error), VARIABLE)) for error in lost),
        *findings,
    ]
