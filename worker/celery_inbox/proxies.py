"""Finds the real connection or session in what agents of monitoring make of it.

Those wrap connections in proxies (wrapt's, or their own copies of it) that are of no class of the
driver, or only say so, and keep what they wrap in `__wrapped__`. Frameworks' proxies for the
current session have a method that returns it.
"""

import sys
from typing import Any

#: Agents may wrap what other agents wrapped.
_MAX_LAYERS = 8


def bare(value: Any, kind: str) -> Any:
    """What is of this class below all proxies, or None.

    kind: "module.Class" of a library that is imported only where an application uses it.
    """
    module, _, name = kind.rpartition(".")
    wanted = getattr(sys.modules.get(module), name, None)
    if wanted is None:
        return None
    for _layer in range(_MAX_LAYERS):
        if issubclass(type(value), wanted):  # not isinstance: a proxy claims any class
            return value
        kind_of_proxy = type(value)
        current = getattr(kind_of_proxy, "_get_current_object", None)
        if current is not None:
            value = current.__get__(value, kind_of_proxy)()
        else:
            value = getattr(value, "__wrapped__", None)
    return None
