"""Traces (OUTBOX_TRACING=on): what the loop notes, the spans that follow, and who exports them.

`parent` and `spans` are pure. `trail` is all that the loop knows of traces, and needs the standard
library alone. `recorder` has a thread of its own. `sdk` is the one module that imports
OpenTelemetry, and nothing imports it while tracing is off.
"""
