"""What a checkout asks of its files and commits, and that it keeps to it itself."""

import os
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def output(*command: str, **environment: str) -> str:
    """What a command prints in the checkout."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def files_as_made() -> set[str]:
    """Those that the editor is told to leave alone."""
    config = ConfigParser(interpolation=None)
    config.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    return {s for s in config.sections() if config[s].get("trim_trailing_whitespace") == "unset"}


def test_files_look_as_the_editor_is_told() -> None:
    """Every text file: LF, a newline at the end, no blanks before one, tabs in Makefiles alone."""
    wrong, made = [], files_as_made()
    for name in output("git", "ls-files").splitlines():
        content = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        if b"\0" in content or not content:
            continue
        lines = content.split(b"\n")
        blanks = name not in made and any(line != line.rstrip() for line in lines)
        tabs = b"\t" in content and Path(name).name != "Makefile"
        if lines[-1] or blanks or tabs:
            wrong.append(name)

    assert wrong == []


def test_a_commit_is_checked_as_make_check_does(tmp_path: Path) -> None:
    """Every part of `make check` is a hook, and no hook asks for anything from elsewhere."""
    program = str(Path(sys.executable).with_name("pre-commit"))
    output(program, "validate-config", PRE_COMMIT_HOME=str(tmp_path))
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]

    assert [repo["repo"] for repo in config["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks} == {"system"}
    parts = output("make", "--dry-run", *(hook["entry"].removeprefix("make ") for hook in hooks))
    assert parts == output("make", "--dry-run", "check")


def test_making_the_environment_is_quiet() -> None:
    """A hundred names of packages are not what somebody who tries the demo wants to read."""
    commands = output("make", "--dry-run", "--always-make", ".venv/.synced").splitlines()

    (sync,) = [command for command in commands if " sync " in command]
    assert "--quiet" in sync
