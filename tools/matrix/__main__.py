"""`make test-servers`: all versions, or those named (`ONLY="rabbitmq-4.3 postgres-14"`)."""

import os
import sys
from argparse import ArgumentParser

from matrix import page
from matrix.places import CHECKOUT
from matrix.rows import Result, rows, run


def main() -> int:
    """Run them one after another; 1 where a test failed."""
    parser = ArgumentParser(prog="make test-servers", description=__doc__)
    parser.add_argument("only", nargs="*", help="versions to try, such as postgres-14")
    parser.add_argument("--uv", default="uv", help="the uv that makes environments")
    parser.add_argument("--pytest", default="", help="further arguments of pytest")
    given = parser.parse_args()
    every = rows(os.path.abspath(given.uv) if os.sep in given.uv else given.uv)  # noqa: PTH100
    if unknown := {*given.only} - {row.key for row in every}:
        known = ", ".join(row.key for row in every)
        parser.error(f"{min(unknown)} is none of {known}")
    results: list[Result] = []
    for row in every:
        if given.only and row.key not in given.only:
            continue
        print(f"{row.name} ...", end=" ", flush=True)
        result = run(row, given.pytest.split())
        results.append(result)
        told = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped"
        print(result.missing or f"{told} in {result.seconds:.0f} s", flush=True)
        for failure in result.failures:
            print(f"  {failure}", flush=True)
    if not given.only:
        page.write(CHECKOUT / "docs/compatibility.md", results)
    return int(any(result.failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
