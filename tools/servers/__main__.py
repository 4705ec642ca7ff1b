"""Finds or unpacks the RabbitMQ for the tests: prints its root, and for people its version."""

import sys

from servers.errors import ServerMissing
from servers.rabbitmq_packages import find_or_fetch, version

try:
    found = find_or_fetch()
except ServerMissing as error:
    sys.exit(f"no RabbitMQ: {error}")
print(f"RabbitMQ {version(found)}", file=sys.stderr)
print(found)
