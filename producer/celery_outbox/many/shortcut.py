"""Whether messages may be made by a pattern: where nobody's code would notice, or have a say.

Whatever changes or hears a send as it happens (a receiver of its signals, an overridden method, an
agent, a router, an option that is somebody's own) is asked for every single one.
"""

from types import FunctionType
from typing import Any, Final, cast

import celery.app.amqp
import celery.app.base
import celery.app.task
import kombu.messaging
from celery import Celery, Task, signals
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute, Router
from kombu import Producer

#: Options of apply_async that mean the same for every call. Others go the long way.
OPTIONS: Final = frozenset(
    {
        "add_to_parent",
        "compression",
        "countdown",
        "delivery_mode",
        "eta",
        "exchange",
        "expires",
        "headers",
        "ignore_result",
        "link",
        "link_error",
        "ordering_key",
        "outbox",
        "priority",
        "queue",
        "retry",
        "retry_policy",
        "routing_key",
        "serializer",
        "shadow",
        "soft_time_limit",
        "time_limit",
    }
)
#: What is Celery's own as long as nobody replaced it: of a class, where it was written.
OWN: Final[tuple[tuple[type, str, Any], ...]] = (
    (Task, "apply_async", celery.app.task),
    (Task, "shadow_name", celery.app.task),
    (Celery, "send_task", celery.app.base),
    (AMQP, "as_task_v2", celery.app.amqp),
    (AMQP, "_create_task_sender", celery.app.amqp),
    (Producer, "publish", kombu.messaging),
    (Producer, "_prepare", kombu.messaging),
)
SIGNALS: Final = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


def is_open(app: Any, task: Any, options: dict[str, Any]) -> bool:
    """Tell whether calls of `task`, or of one by its name, need not go the long way each."""
    amqp, conf = app.amqp, app.conf
    return (
        options.keys() <= OPTIONS
        and not any(signal.receivers for signal in SIGNALS)
        and all(_is_own(getattr(kind, name), module) for kind, name, module in OWN)
        and type(amqp) is AMQP
        and conf.task_protocol == 2
        and type(amqp.router) is Router
        and all(isinstance(route, MapRoute) for route in cast(Any, amqp).routes)
        and type(app.backend).on_task_call.__module__.startswith("celery.")
        and _keeps(app, "send_task", ("celery_outbox.app", "celery.app.base"))
        and (isinstance(task, str) or _is_plain(task, conf))
    )


def _is_plain(task: Any, conf: Any) -> bool:
    return (
        not conf.task_always_eager
        and not getattr(task, "__v2_compat__", False)
        and getattr(task, "_dump_pydantic_arguments", None) is None
        and getattr(task, "__self__", None) is None
        and all(_keeps(task, name, ("celery.app.task",)) for name in ("apply_async", "shadow_name"))
    )


def _is_own(function: Any, module: Any) -> bool:
    """Tell whether a function is the one that `module` defines, not one around it."""
    return type(function) is FunctionType and function.__globals__ is vars(module)


def _keeps(thing: Any, method: str, modules: tuple[str, ...]) -> bool:
    """Tell whether only classes of `modules` define a method, and nobody replaced it on `thing`."""
    defining = {kind.__module__ for kind in type(thing).__mro__ if method in vars(kind)}
    return method not in vars(thing) and defining <= {*modules}
