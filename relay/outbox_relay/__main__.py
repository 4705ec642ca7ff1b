"""`python -m outbox_relay` is the `outbox-relay` command."""

import sys

from outbox_relay.cli import main

sys.exit(main())
