#!/usr/bin/env bash
# Once Sentry's SDK has begun, kombu's `Producer.publish` no longer tells what options it takes.
#
# Versions: sentry-sdk 2.75.0, celery 5.7.0, kombu 5.7.0.
# Expected: a function that stands around another one keeps its name and signature, as the SDK does with
#           Celery's `Task.apply_async`, which it also replaces.
# Happens:  `publish` becomes `sentry_publish(self, *args, **kwargs)`, with nothing that leads back to the
#           original: neither its name, nor `__wrapped__`, nor one of its options.
# Matters:  an outbox has to know the options of publish, to tell a misspelt one, which would be left out on
#           the wire, from an AMQP property. One that asks the function itself refuses `declare=` as unknown
#           wherever Sentry was started before it. So ours has them written down.

. "$(dirname "$0")/lib/finding.sh"
packages sentry-sdk==2.75.0 celery==5.7.0 kombu==5.7.0

python - <<'END'
from inspect import signature

import sentry_sdk
from celery import Task
from kombu import Producer


def told(function):
    return function.__name__, "declare" in signature(function).parameters, len(signature(function).parameters)


before = told(Producer.publish)
print("before: publish (name, declares, parameters)", before)
assert before == ("publish", True, 20)
sentry_sdk.init(dsn="http://nobody@127.0.0.1:9/1", traces_sample_rate=1.0, transport=lambda _: None)
after = told(Producer.publish)
print("after: ", after, "wraps", getattr(Producer.publish, "__wrapped__", None))
assert after == ("sentry_publish", False, 3)
assert not hasattr(Producer.publish, "__wrapped__")
print("apply_async, also replaced:", told(Task.apply_async)[0], "of", len(signature(Task.apply_async).parameters))
assert Task.apply_async.__globals__["__name__"] != "celery.app.task"
assert "link_error" in signature(Task.apply_async).parameters
END
