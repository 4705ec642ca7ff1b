"""Postgres refuses to run as root; this finds who it can run as, without adding a user."""

import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from servers.errors import ServerMissing
from servers.folders import completed


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process runs as: a command put in front of it, or another user of the machine."""

    prefix: tuple[str, ...] = ()
    user: int | None = None
    group: int | None = None

    def home(self, folder: Path) -> Path:
        """Return a folder this identity may own: the given one, or one in its place in /var/tmp."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.user is None:
            return folder
        link = folder / "home"
        if link.exists():
            return link.resolve()
        place = folder
        if not _is_passable(folder.parent):
            place = Path(tempfile.mkdtemp(prefix="celery-outbox-", dir="/var/tmp"))
            link.symlink_to(place)
        self.give(place)
        return place

    def give(self, path: Path) -> None:
        """Make this identity the owner of a file or folder."""
        if self.user is not None and self.group is not None:
            os.chown(path, self.user, self.group)

    def installation(self, original: Path, copy: Path) -> Path:
        """Return an installation this identity may execute: the original, or a copy if closed.

        Only a wheel's can be closed: it lies wherever the checkout does.
        """
        if self.user is None or _is_passable(original):
            return original
        if not copy.exists():
            with completed(copy) as unfinished:
                package = original.parent
                libraries = package.with_suffix(".libs")  # a wheel's, found by relative path
                for part in (original, libraries):
                    place = unfinished / part.relative_to(package.parent)
                    shutil.copytree(part, place, symlinks=True)
        return copy / original.relative_to(original.parent.parent)


MYSELF = Identity()


def unprivileged() -> Identity:
    """Return an identity that is not root and that the user database knows, as initdb demands."""
    if os.geteuid() != 0 and _is_known(os.geteuid()):
        return MYSELF
    nobody = pwd.getpwnam("nobody")
    # Root seen as nobody in a user namespace: files stay root's, closed folders stay open to it.
    prefix = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return Identity(prefix=prefix)
    if os.geteuid() == 0:  # a plain container forbids namespaces, but lets root become another
        return Identity(user=nobody.pw_uid, group=nobody.pw_gid)
    raise ServerMissing(
        f"Postgres cannot run as uid {os.geteuid()}: it has no entry in /etc/passwd and user "
        "namespaces are off. Run as a named user, or set OUTBOX_DATABASE_URL to a running server."
    )


def _is_known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _is_passable(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))
