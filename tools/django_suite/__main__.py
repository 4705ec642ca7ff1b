"""`python -m django_suite SUITE`: Django's own tests of task backends, run against ours.

SUITE is where Django's source distribution was unpacked. Prints what failed, with the reason where
the documentation names it; ends with 1 if it does not, or if a difference is none any more.
"""

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

from django_suite.differences import DOCUMENTED
from outbox_migrations import upgrade
from servers import Postgres

#: Seconds for all of the tests.
DEADLINE = 1800
TOOLS = Path(__file__).resolve().parents[1]


def main(suite: Path, options: list[str]) -> int:
    """Run the tests on a Postgres of their own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="django-suite-")))
        postgres = Postgres(folder / "postgres")
        stack.callback(postgres.discard)
        database = postgres.start().create_database()
        upgrade(database)
        (folder / "results").mkdir()
        report = folder / "report.xml"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")},
            "PYTHONPATH": os.pathsep.join((str(TOOLS), str(suite / "tests"))),
            "DATABASE_URL": database,
            "RESULTS": str(folder / "results"),
            # Some of the tests read results in an event loop, which Django itself then refuses.
            "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
        }
        command = [sys.executable, "-m", "pytest", "-p", "django_suite.plugin"]
        command += ["-p", "no:cacheprovider", "-q", "--tb=short", f"--junit-xml={report}"]
        command += ["--rootdir", str(suite / "tests"), "-c", os.devnull]
        command += ["--import-mode=importlib", "--override-ini=python_files=test_*.py"]
        command += options or ["tasks"]
        subprocess.run(command, cwd=suite / "tests", env=environment, check=False, timeout=DEADLINE)
        return judge(report)


def judge(report: Path) -> int:
    """Print how the tests ended, and return 1 if that is not as documented."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [
        case for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    failed = {
        f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}" for case in bad
    }
    for test in sorted(failed):
        print(f"{test}: {DOCUMENTED.get(test, 'not documented')}")
    print(f"{len(cases) - len(failed)} passed, {len(failed)} failed")
    return int(failed != DOCUMENTED.keys() or not cases)


if __name__ == "__main__":
    where, *given = sys.argv[1:]
    sys.exit(main(Path(where).resolve(), given))
