"""The numbers of claims: a half that names the relay, and a half that counts, over and over.

A relay that takes a turn four hundred times a second has used up the count after four months. Then
it begins anew: claims of so long ago are over, and the relay's own half stays as it is.
"""

from typing import Final

#: How many numbers one relay has.
SPAN: Final = 1 << 32


def following(claim_id: int) -> int:
    """The number of the same relay's next claim."""
    return claim_id - claim_id % SPAN + (claim_id + 1) % SPAN


def is_before(claim_id: int, other: int) -> bool:
    """Whether a claim was made before another of the same relay, whether or not it began anew."""
    return 0 < (other - claim_id) % SPAN < SPAN // 2
