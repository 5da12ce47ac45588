"""A full disk of the database: everything reports it, and the work goes on when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.test_database import midway, source
from tests.support.daemon import Daemon, assert_exact, wait_until_complete
from tests.support.fault_harness import DAYS, FaultHarness

pytestmark = [pytest.mark.acceptance, pytest.mark.short]


class FullDisk:
    """A small file system on which the database is.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, site: FaultHarness, folder: Path) -> None:
        self.site, self.folder = site, folder

    def fill(self) -> None:
        """Leave no room."""
        with (self.folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self) -> None:
        """Give the room back."""
        (self.folder / "filler").unlink()


class RejectedWrites(FullDisk):
    """The server's error for a full disk, in each merge; the server's other files have room."""

    def fill(self) -> None:
        self.site.run(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING"
            " ERRCODE = '53100', MESSAGE = 'could not extend file \"base/1/2\": No space left on device'; END$$;"
            "CREATE TRIGGER no_room BEFORE INSERT ON flow_outcomes.figure FOR EACH ROW EXECUTE FUNCTION no_room()"
        )

    def free(self) -> None:
        self.site.run("DROP FUNCTION no_room() CASCADE")


@contextmanager
def small_file_system(site: FaultHarness) -> Iterator[FullDisk]:
    """The site's database on a file system of its own."""
    [(data,)] = site.run("SHOW data_directory")
    folder = Path(tempfile.mkdtemp(prefix="flow-outcomes-disk-"))
    owner = Path(str(data)).stat()
    options = f"size=40m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)  # noqa: S607
    move = f"ALTER DATABASE {site.name} SET TABLESPACE"
    try:
        site.server.run(f"CREATE TABLESPACE small LOCATION '{folder}'")
        site.server.run(f"{move} small")
        try:
            yield FullDisk(site, folder)
        finally:
            (folder / "filler").unlink(missing_ok=True)
            for running in site.program._running:
                running.kill()
            for pid, _ in site.sessions("%"):
                site.server.run(f"SELECT pg_terminate_backend({pid}, 5000)")
        site.server.run(f"{move} pg_default")
        site.server.run("DROP TABLESPACE small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607
        folder.rmdir()


def may_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0  # noqa: S607


on_a_small_file_system = pytest.mark.skipif(not may_mount(), reason="only root may mount a file system")


@pytest.fixture(params=["a full file system", "rejected writes"])
def disk(request: pytest.FixtureRequest, site: FaultHarness) -> Iterator[FullDisk]:
    if request.param == "rejected writes":
        yield RejectedWrites(site, Path())
    elif may_mount():
        with small_file_system(site) as disk:
            yield disk
    else:
        pytest.skip("only root may mount a file system")


@pytest.mark.counts_days
async def test_a_full_disk(site: FaultHarness, disk: FullDisk) -> None:
    """The probe, the gauge and the page report it; nothing is requested in vain; the windows are stored later."""
    async with source() as simulator:
        site.configure(simulator)
        daemon = await Daemon.start(site.program)
        await midway(daemon)
        disk.fill()
        reason = (await daemon.wait_for_event("database_unavailable"))["reason"]
        assert "No space left on device" in reason
        status, body = await daemon.get("/readyz")
        assert status == 503
        assert json.loads(body)["reason"].startswith("nothing can be stored: could not ")
        assert (await daemon.get("/healthz"))[0] == 200
        assert "\nflow_outcomes_database_up 0.0\n" in (await daemon.get("/metrics"))[1]
        assert "nothing can be stored" in (await daemon.get("/"))[1]
        problem = json.loads((await daemon.get("/api/now"))[1])["problem"]
        assert "No space left on device" in problem
        if not isinstance(disk, RejectedWrites):
            await daemon.wait_for_event("database_unavailable", daemon.count("database_unavailable") + 1)
            requests = len(simulator.arrivals)
            await daemon.wait_for_event("database_unavailable", daemon.count("database_unavailable") + 2)
            assert len(simulator.arrivals) == requests
        disk.free()
        assert await daemon.wait_until_ready() < 70
        await wait_until_complete(daemon, DAYS - 1)
        assert_exact(site.program, simulator)
        assert "\nflow_outcomes_database_up 1.0\n" in (await daemon.get("/metrics"))[1]
        assert (daemon.count("window_failed"), daemon.count("unexpected_error")) == (0, 0)
        await daemon.end()


@on_a_small_file_system
async def test_a_disk_that_is_full_at_the_start(site: FaultHarness) -> None:
    """No lease can be stored; the log says why, and the work begins when there is room."""
    with small_file_system(site) as disk:
        async with source() as simulator:
            site.configure(simulator)
            disk.fill()
            daemon = await Daemon.start(site.program)
            reason = (await daemon.wait_for_event("database_unavailable"))["reason"]
            assert reason.startswith("nothing can be stored: could not extend file")
            await daemon.wait_until_unready()
            disk.free()
            await wait_until_complete(daemon, DAYS - 1)
            assert_exact(site.program, simulator)
            await daemon.end()


@on_a_small_file_system
async def test_a_disk_that_becomes_full_while_nothing_is_due(site: FaultHarness) -> None:
    """The probe reports it before a window needs the room."""
    with small_file_system(site) as disk:
        async with source() as simulator:
            site.configure(simulator)
            daemon = await Daemon.start(site.program)
            await wait_until_complete(daemon, DAYS - 1)
            await daemon.wait_until_ready()
            disk.fill()
            await asyncio.sleep(1.1)  # the age up to which the last answer is repeated
            status, body = await daemon.get("/readyz")
            assert (status, "No space left on device" in body) == (503, True)
            disk.free()
            await daemon.wait_until_ready()
            await daemon.end()
