"""`python -m celery_outbox`: the commands of the producer."""

import argparse
import sys
from collections.abc import Sequence

from celery_outbox.check import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m celery_outbox")
    command.add_to(parser.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
