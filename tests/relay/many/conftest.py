"""The databases of many outboxes, made once for all tests here, and the relay that serves them."""

from tests.relay.many.tenants import databases, serve, tenants_template

__all__ = ["databases", "serve", "tenants_template"]
