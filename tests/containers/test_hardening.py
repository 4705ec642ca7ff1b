"""What a container may do is looked at from inside: no root, no right, nothing to write on."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.containers.stack import Stack

#: Prints what the kernel says of the first process, and where this one could write.
LOOK = """
import json, os

status = dict(line.split(":", 1) for line in open("/proc/1/status"))
facts = {key: status[key].split() for key in ("Uid", "Gid", "CapEff", "CapPrm", "CapBnd")}
facts |= {key: status[key].split() for key in ("NoNewPrivs", "Seccomp")}
facts["written"] = []
for folder in ("/", "/etc", "/opt", "/usr/bin", "/home", "/var/tmp", "/tmp"):
    try:
        with open(os.path.join(folder, "trace"), "w"):
            facts["written"].append(folder)
    except OSError:
        pass
print(json.dumps(facts))
"""
#: Prints the programs of all processes but the one that looks.
PROGRAMS = """
import json, os

pids = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
print(json.dumps(sorted({os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in pids})))
"""


@pytest.mark.parametrize(
    ("service", "uid"), [("relay", "10001"), ("shop", "10002"), ("worker", "10002")]
)
def test_a_service_has_no_rights(stack: Stack, service: str, uid: str) -> None:
    """Another user than root, no capability to gain, a filter on system calls, a read-only root."""
    assert_harmless(stack.python(service, LOOK), uid)


def test_the_migration_has_no_rights(stack: Stack) -> None:
    """The same for the job."""
    command = ("run", "--rm", "--no-deps", "-T", "--entrypoint=python", "migrate", "-c", LOOK)

    assert_harmless(json.loads(stack.compose(*command)), "10001")


def assert_harmless(facts: dict[str, Any], uid: str) -> None:
    """Real, effective, saved and file system user alike; every set of capabilities empty."""
    assert facts["Uid"] == [uid] * 4
    assert facts["Gid"] == [uid] * 4
    assert {*facts["CapEff"], *facts["CapPrm"], *facts["CapBnd"]} == {"0" * 16}
    assert facts["NoNewPrivs"] == ["1"]
    assert facts["Seccomp"] == ["2"]
    assert facts["written"] == ["/tmp"]


def test_a_relay_is_one_process_and_no_shell(stack: Stack) -> None:
    """Neither as its first process nor beside it."""
    (program,) = stack.python("relay", PROGRAMS)

    assert program.startswith("python")


def test_a_relay_needs_no_shell(stack: Stack) -> None:
    """It publishes where there is none to be run."""
    masks = [f"--volume=/dev/null:/bin/{shell}:ro" for shell in ("sh", "bash")]
    stack.ask("/orders", {"customer": "Ada", "items": ["lamp"]})

    stack.compose("run", "--rm", "--no-deps", "-T", *masks, "relay", "run", "--drain")


def test_secrets_may_be_files(stack: Stack, tmp_path: Path) -> None:
    """No variable holds one, and no inspection of the container shows it."""
    url = tmp_path / "database-url"
    url.write_text("postgresql://relay:relay@postgres/shop\n")
    url.chmod(0o444)
    file = "/run/secrets/database-url"
    variables = ("-eOUTBOX_DATABASE_URL=", f"-eOUTBOX_DATABASE_URL_FILE={file}")

    mounted = f"--volume={url}:{file}:ro"
    stack.compose("run", "--rm", "-T", *variables, mounted, "relay", "run", "--drain")
