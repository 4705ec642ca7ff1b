"""`make release-check` finds what must not be uploaded, and says why."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from release.clean import Environment, check_alone, check_whole
from release.contents import check_contents, sources
from release.packages import FOLDERS, ROOT, Package, Unreleasable, packages

INBOX = next(package for package in packages() if package.name == "celery-inbox")
#: What a wheel and an sdist say of themselves.
TOLD = ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")
UV = shutil.which("uv") or str(ROOT / ".uv/bin/uv")


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of celery-inbox, as far as names go."""
    return _zip(tmp_path / "inbox.whl", *sources(INBOX), *_told(INBOX))


@pytest.fixture
def sdist(tmp_path: Path) -> Path:
    """An sdist of it."""
    folder = tmp_path / "sdist" / INBOX.stem
    shutil.copytree(ROOT / "worker", folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (folder / "PKG-INFO").touch()
    made = shutil.make_archive(str(tmp_path / "inbox"), "gztar", folder.parent, INBOX.stem)
    return Path(made)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An empty environment that knows no index but the test's folder."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    return Environment(tmp_path / "environment", UV, sys.executable)


def test_own_files_alone_are_fine(wheel: Path, sdist: Path) -> None:
    """Nothing is said."""
    check_contents(INBOX, wheel, sdist)


def test_a_foreign_file_is_named(tmp_path: Path, wheel: Path, sdist: Path) -> None:
    """Such as an example beside the package."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("shop/app.py", "")

    with pytest.raises(Unreleasable, match=r"celery-inbox: its wheel also holds shop/app\.py"):
        check_contents(INBOX, wheel, sdist)


def test_a_missing_file_is_named(tmp_path: Path, sdist: Path) -> None:
    """Such as the marker that it is typed."""
    names = {*sources(INBOX), *_told(INBOX)} - {"celery_inbox/py.typed"}
    wheel = _zip(tmp_path / "inbox.whl", *names)

    with pytest.raises(Unreleasable, match=r"its wheel lacks celery_inbox/py\.typed"):
        check_contents(INBOX, wheel, sdist)


def test_all_have_one_version(tmp_path: Path) -> None:
    """The one that differs is named."""
    for folder in (*FOLDERS, "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        shutil.copy(ROOT / folder / "pyproject.toml", tmp_path / folder)
    project = tmp_path / "relay/pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))

    with pytest.raises(Unreleasable, match=r"relay/pyproject\.toml says version 9\."):
        packages(tmp_path)


def test_a_package_that_brings_another_is_refused(tmp_path: Path, environment: Environment) -> None:
    """The four never need one another: whoever takes one gets one."""
    _wheel(tmp_path, "their-core", "")
    file = _wheel(tmp_path, "our-app", "__version__ = '1.0'", needs=("their-core",))

    with pytest.raises(Unreleasable, match=r"our_app-1\.0-py3-none-any\.whl brings their-core"):
        check_alone(environment, _package("our-app"), file, {"their-core"})


def test_a_need_that_is_not_declared_is_found(tmp_path: Path, environment: Environment) -> None:
    """In whichever module, although the package itself imports."""
    file = _wheel(tmp_path, "our-app", "__version__ = '1.0'", module="import celery")

    check_alone(environment, _package("our-app"), file, set())
    with pytest.raises(Unreleasable, match="No module named 'celery'"):
        check_whole(environment, _package("our-app"), file)


def test_another_version_than_it_says_is_refused(tmp_path: Path, environment: Environment) -> None:
    """`__version__` is what is installed."""
    file = _wheel(tmp_path, "our-app", "__version__ = '0.9'")

    with pytest.raises(Unreleasable, match=r"our-app 1\.0 says it is 0\.9"):
        check_alone(environment, _package("our-app"), file, set())


def _package(name: str) -> Package:
    return Package(name, "1.0", folder=".", commands=(), extras=())


def _told(package: Package) -> list[str]:
    return [f"{package.stem}.dist-info/{name}" for name in TOLD]


def _zip(file: Path, *names: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return file


def _wheel(
    folder: Path, name: str, init: str, *, module: str = "", needs: tuple[str, ...] = ()
) -> Path:
    """A wheel that can be installed: a package and one module in it."""
    package = _package(name)
    info = f"{package.stem}.dist-info"
    told = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0"]
    file = folder / f"{package.stem}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{package.module}/__init__.py", init)
        archive.writestr(f"{package.module}/other.py", module)
        archive.writestr(
            f"{info}/METADATA", "\n".join([*told, *(f"Requires-Dist: {n}" for n in needs)])
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file
