"""The pages: each reads a request, asks the outbox once, and fills in a template."""
