"""`run`: the daemon, and `run --drain`, which publishes what is due and ends."""

import secrets
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from outbox_relay.broker.registry import (
    broker_of,
    depths_of,
    lowest_first,
    open_dead_letters,
    open_sounder,
    publisher_factory,
)
from outbox_relay.cli.command import Command
from outbox_relay.cli.flags import DAEMON
from outbox_relay.cli.lifetime import LANDING, on_signals, spare_the_collector
from outbox_relay.cli.run_many import run_many
from outbox_relay.core.guard import Guard
from outbox_relay.errors import SettingsError
from outbox_relay.loop.counting import Counting
from outbox_relay.loop.homecoming import Homecoming
from outbox_relay.loop.knowledge import Knowledge
from outbox_relay.loop.relay import Relay
from outbox_relay.loop.soundings import DepthWatch
from outbox_relay.observe.effects import EffectWatch
from outbox_relay.observe.health import Endpoint, Health
from outbox_relay.observe.metrics import Metrics
from outbox_relay.observe.queues import QueueWatch
from outbox_relay.observe.tracing.recorder import Recorder
from outbox_relay.observe.tracing.trail import Trail
from outbox_relay.operator import depths, unknown
from outbox_relay.operator.effects import Effects
from outbox_relay.operator.identity import Identity
from outbox_relay.postgres.counting import Counter
from outbox_relay.postgres.home import Home
from outbox_relay.postgres.open import open_store
from outbox_relay.postgres.purge import tidy
from outbox_relay.postgres.replays import Replays
from outbox_relay.postgres.workers import Workers
from outbox_relay.settings import Settings

#: The share of it for spans that no collector has yet.
FLUSHING: Final = 0.1


def command() -> Command:
    """The command."""
    return Command(
        "run",
        "publish until told to stop",
        _run,
        _arguments,
        DAEMON,
        need_broker=True,
        run_many=run_many,
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--drain", action="store_true", help="publish everything due, then exit")


def _run(arguments: Namespace, settings: Settings) -> int:
    drain: bool = arguments.drain
    metrics, health = Metrics(), Health()
    depths_held = depths_of(settings)
    guard = Guard() if settings.hold_unknown else None
    recorder = _recorder(settings, metrics) if settings.tracing else None
    shown = settings.http_address is not None and not drain
    relay = Relay(
        replace(settings, grace_period=LANDING * settings.grace_period),
        open_store=lambda: open_store(settings, str(Identity.of(settings))),
        open_publisher=publisher_factory(settings),
        # 31 random bits name this relay, 32 count its claims: no two claims are alike.
        first_claim_id=secrets.randbits(31) << 32,
        metrics=metrics,
        health=health,
        tidy=partial(tidy, settings),
        guard=guard,
        depths=depths_held,
        trail=Trail(recorder.take) if recorder else None,
        lowest_first=lowest_first(settings),
        counting=Counting(lambda: Counter.open(settings), metrics) if shown else None,
    )

    on_signals(relay.stop, settings.grace_period)
    spare_the_collector()
    address = settings.http_address
    with ExitStack() as beside:
        if recorder is not None:
            beside.enter_context(recorder)
        if guard is not None:
            beside.enter_context(
                Knowledge(guard, lambda: Workers.open(settings), quiet=relay.quiet)
            )
        if depths_held is not None:
            beside.enter_context(DepthWatch(depths_held, lambda: open_sounder(settings), metrics))
        if drain:
            return 0 if relay.drain() else 1
        if settings.retention:  # else what was sent is forgotten: nothing is left to come home to
            beside.enter_context(
                Homecoming(
                    lambda: Home.open(settings),
                    lambda: open_dead_letters(settings),
                    metrics,
                    quiet=relay.quiet,
                )
            )
        if address:
            beside.enter_context(Endpoint(address, health, metrics.registry))
            beside.enter_context(
                QueueWatch(
                    lambda: depths.read(settings),
                    metrics,
                    quiet=relay.quiet,
                    unknown=lambda: {
                        (each.task, each.queue): each.messages for each in unknown.watch(settings)
                    },
                )
            )
            if settings.retention:  # else what was sent is forgotten: nothing can be missed
                beside.enter_context(
                    EffectWatch(Effects(settings).round, metrics, quiet=relay.quiet)
                )
        relay.run()
    return 0


def _recorder(settings: Settings, metrics: Metrics) -> Recorder:
    """What exports traces. Only here, and only if it is asked for, OpenTelemetry is imported."""
    try:
        from outbox_relay.observe.tracing.sdk import Writer
    except ImportError as error:
        raise SettingsError(
            f"OUTBOX_TRACING is on, and OpenTelemetry cannot be imported ({error}): "
            "pip install 'outbox-relay[otel]', or set it to off"
        ) from error
    url, _, _ = settings.broker_url.read().partition(";")
    return Recorder(
        Writer.from_environment(),
        Replays(settings),
        metrics,
        system=broker_of(url.strip()).name.lower(),  # as OpenTelemetry writes them
        flush_seconds=FLUSHING * settings.grace_period,
    )
