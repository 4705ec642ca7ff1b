"""What requests leave behind: for programs that tests run, in an example's folder."""

import gc
import json
from collections import Counter
from collections.abc import Callable

#: Requests until what is made once, or kept up to a bound, is there.
WARM_UP = 160


def tell_what_is_left(request: Callable[[], object], requests: int) -> None:
    """Serve so many requests, and print the classes that have more objects afterwards, as JSON.

    The garbage collector has run before: all of these are referred to by something.
    """
    for _ in range(WARM_UP):
        request()
    before = _living()
    for _ in range(requests):
        request()
    print(json.dumps(_living() - before))


def _living() -> Counter[str]:
    gc.collect()
    kinds: Counter[type] = Counter(type(each) for each in gc.get_objects())
    return Counter({f"{kind.__module__}.{kind.__qualname__}": n for kind, n in kinds.items()})
