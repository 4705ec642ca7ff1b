"""The `outbox-relay` command, also as `python -m outbox_relay`."""

import sys


def main() -> int:
    """Run it. What is imported here is all that a health check has to wait for."""
    if sys.argv[1:] == ["health"]:
        from outbox_relay.cli import health

        return health.main()
    from outbox_relay.cli import main as cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
