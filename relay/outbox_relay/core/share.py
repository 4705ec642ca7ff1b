"""Who gets how much of what there is not enough of. Pure."""

from collections.abc import Mapping
from typing import Final, TypeVar

Key = TypeVar("Key")
#: A wish for as much as there is.
ALL: Final = 1 << 31


def share(wishes: Mapping[Key, int], room: int) -> dict[Key, int]:
    """How much each gets of the room: its wish, or as much as any other that wants more.

    Nothing is left over while a wish is open. Where there is not even one for each, those that
    come first get one: put first who has waited longest, and all have their turn.
    """
    left = max(0, room)
    open_wishes = {key: wish for key, wish in wishes.items() if wish > 0}
    first = dict(list(open_wishes.items())[:left])
    shares: dict[Key, int] = {}
    for place, key in enumerate(sorted(first, key=first.__getitem__)):
        shares[key] = min(first[key], left // (len(first) - place))
        left -= shares[key]
    return {key: shares[key] for key in first}
