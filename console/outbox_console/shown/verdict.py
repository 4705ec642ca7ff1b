"""One sentence for one glance: do tasks flow, and if not, what is to be looked at. Pure."""

from dataclasses import dataclass
from typing import Final

from outbox_console.outbox.samples import Sample
from outbox_console.shown.words import amount, duration

#: Where so much of what is pending is paused, somebody wants it to wait: as the alerts have it.
_NEARLY_ALL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    """`level` is ok, busy or bad; `remedy` is empty where nothing is to be done."""

    level: str
    title: str
    remedy: str


def of(sample: Sample) -> Verdict:
    """What a sample comes to; the first that applies counts."""
    if sample.relays == 0 and sample.pending:
        return Verdict(
            "bad",
            f"No relay is connected, and {amount(sample.pending, 'message')} wait",
            "Nothing is published until one runs: outbox-relay run. Nothing is lost meanwhile.",
        )
    is_held = 0 < _NEARLY_ALL * sample.pending <= sample.paused
    is_quiet = sample.quiet is None or sample.quiet > 60
    if sample.pending and sample.oldest > 60 and is_quiet and not is_held:
        return Verdict(
            "bad",
            f"Nothing was confirmed for {duration(sample.quiet or sample.oldest)}, "
            f"and {amount(sample.pending, 'message')} wait",
            "Relays are connected and do not get through: run outbox-relay doctor, see Failures.",
        )
    if sample.dead:
        return Verdict(
            "bad",
            f"{amount(sample.dead, 'message')} given up",
            f"The others {'are paused' if is_held else 'flow'}. "
            "See Failures for the causes, fix them, and retry.",
        )
    if is_held:
        return Verdict(
            "busy",
            f"Paused: {amount(sample.paused, 'message')} wait",
            "Somebody has paused where they go or what they are: see Routes for whom and why.",
        )
    if sample.oldest > 30:
        return Verdict(
            "busy",
            f"Behind by {duration(sample.oldest)}: {amount(sample.pending, 'message')} wait",
            f"{'Some are paused (see Routes), some' if sample.paused else 'Some'} "
            "wait for another attempt, or more comes than goes: see Pending and Failures.",
        )
    if sample.relays == 0:
        return Verdict(
            "busy", "Nothing waits, and no relay is connected", "Start one: outbox-relay run."
        )
    if sample.committed or sample.confirmed or sample.pending:
        return Verdict("ok", "Tasks flow", "")
    return Verdict("ok", "All quiet: nothing waits", "")
