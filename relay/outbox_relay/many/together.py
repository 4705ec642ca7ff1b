"""The metrics of many outboxes as one family each: by name, or several in one number. Pure.

What counts is added up, and so is what there is; an age is the highest, and a server is up if it is
up for all of them. What is unknown of one does not hide what is known of the others.
"""

from collections.abc import Callable, Iterable, Mapping
from math import isnan, nan
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

LABEL: Final = "outbox"
#: Families that only grow: each of their samples does.
COUNTING: Final = ("counter", "histogram")
#: When a counter was made: a series for each that says nothing of many.
CREATED: Final = "_created"
#: Gauges of several outboxes in one number; all others are added up.
LOWEST: Final = frozenset({"outbox_broker_up", "outbox_database_up"})
HIGHEST: Final = frozenset(
    {
        "outbox_oldest_pending_age_seconds",
        "outbox_horizon_age_seconds",
        "outbox_missing_unchecked_seconds",
        "outbox_last_confirm_timestamp_seconds",
        "outbox_broker_blocked",
        "outbox_broker_memory_ratio",
        "outbox_endless_pause_age_seconds",
        "outbox_counts_age_seconds",
        # Of a queue, to which several outboxes may send.
        "outbox_queue_depth",
        "outbox_queue_consumers",
        "outbox_dead_letters_left",
    }
)

#: A sample's name and labels.
Key = tuple[str, tuple[tuple[str, str], ...]]
Families = dict[str, Metric]


def add_named(families: Families, name: str, own: Iterable[Metric]) -> None:
    """Put the families of one outbox among those of all, labelled with its name."""
    label = {LABEL: name}
    for family in own:
        samples = _family(families, family).samples
        samples += [
            Sample(sample.name, {**label, **sample.labels}, sample.value)
            for sample in family.samples
            if not sample.name.endswith(CREATED)
        ]


def add_together(
    families: Families, name: str, each: Iterable[Iterable[Metric]], gone: Mapping[Key, float]
) -> None:
    """Put the families of several among those of all, as one; `gone` is what others counted."""
    values: dict[str, dict[Key, list[float]]] = {}
    for own in each:
        for family in own:
            _family(families, family)
            known = values.setdefault(family.name, {})
            for key, value in _keyed(family):
                known.setdefault(key, []).append(value)
    for family_name, keyed in values.items():
        family = families[family_name]
        if family.type in COUNTING:
            for key in gone:
                if _belongs(key[0], family_name):
                    keyed.setdefault(key, [])
        family.samples += [
            Sample(key[0], {LABEL: name, **dict(key[1])}, _one(key[0], found) + gone.get(key, 0.0))
            for key, found in keyed.items()
        ]


def counted(own: Iterable[Metric]) -> dict[Key, float]:
    """What an outbox has counted so far."""
    return {
        key: value for family in own if family.type in COUNTING for key, value in _keyed(family)
    }


def _family(families: Families, like: Metric) -> Metric:
    if like.name not in families:
        families[like.name] = Metric(like.name, like.documentation, like.type)
    return families[like.name]


def _keyed(family: Metric) -> list[tuple[Key, float]]:
    return [
        ((sample.name, tuple(sample.labels.items())), sample.value)
        for sample in family.samples
        if not sample.name.endswith(CREATED)
    ]


def _belongs(sample: str, family: str) -> bool:
    return sample.startswith(family) and sample[len(family) :] in (
        "_total",
        "_bucket",
        "_sum",
        "_count",
    )


def _one(name: str, values: Iterable[float]) -> float:
    """Several numbers in one."""
    known = [value for value in values if not isnan(value)]
    how: Callable[[list[float]], float] = sum
    if name in LOWEST:
        how = min
    elif name in HIGHEST:
        how = max
    elif name.endswith(("_total", "_bucket", "_sum", "_count")):
        return float(sum(known))
    return how(known) if known else nan
