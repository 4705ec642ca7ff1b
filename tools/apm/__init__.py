"""Agents and instrumentations as users run them, beside our tests (`make test-apm`)."""
