"""The page that draws: Grafana's components as npm has them, and web/, in one script.

They are some 600 MB, in `.dashboard/`, and are fetched again only when the lock file has changed.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from dashboard_picture.needs import Programs

WEB: Final = Path(__file__).with_name("web")
#: Grafana's components, and what they use, are written for these.
DEFINED: Final = {"process.env.NODE_ENV": '"production"', "global": "window"}


class BundleFailed(RuntimeError):
    """npm or esbuild could not do it; the message has what they say."""


def built(programs: Programs, folder: Path) -> Path:
    """The page, made in a folder from what is there or fetched now."""
    folder.mkdir(exist_ok=True)
    _install(programs, folder)
    page = folder / "page"
    shutil.rmtree(page, ignore_errors=True)
    page.mkdir()
    shutil.copy(WEB / "index.html", page)
    options = [
        "--bundle",
        "--minify",
        "--loader:.woff=dataurl",
        "--loader:.woff2=dataurl",
        "--loader:.ttf=empty",  # of the code editor, which comes along and is not drawn
        "--log-level=error",
        f"--outfile={page / 'main.js'}",
        *(f"--define:{name}={value}" for name, value in DEFINED.items()),
    ]
    esbuild = folder / "node_modules/.bin/esbuild"
    _run([programs.node, str(esbuild), str(WEB / "main.tsx"), *options], folder)
    return page / "index.html"


def _install(programs: Programs, folder: Path) -> None:
    wanted = (WEB / "package-lock.json").read_text()
    mark = folder / "installed-lock.json"
    if mark.exists() and mark.read_text() == wanted:
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copy(WEB / name, folder)
    print("npm: fetching Grafana's panel components (600 MB on disk, the first time)", flush=True)
    # Nothing of what is fetched needs to run anything on installation.
    _run([programs.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)
    mark.write_text(wanted)


def _run(argv: list[str], folder: Path) -> None:
    environment = {**os.environ, "NODE_PATH": str(folder / "node_modules")}
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BundleFailed(f"{Path(argv[0]).name} failed:\n{done.stdout}{done.stderr}")
