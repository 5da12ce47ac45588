"""A certificate authority of a test's own, made with openssl's command, and a server that it vouches for."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

HOSTS = ("api.acme.example", "login.acme.example")


@dataclass(frozen=True)
class Authority:
    """A certificate authority.

    Attributes:
        ca_file: its certificate, as PEM.
        server_file: a certificate that it issued for ``HOSTS`` and 127.0.0.1, with its key.
    """

    ca_file: Path
    server_file: Path

    def server_context(self) -> ssl.SSLContext:
        """The TLS of a server with the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server_file)
        return context


def make_authority(folder: Path, name: str = "authority") -> Authority:
    """Create an authority and the certificate of a server in a folder."""
    ca, key, server, extensions = (folder / f"{name}.{each}" for each in ("pem", "key", "server", "extensions"))
    names = ",".join([*(f"DNS:{host}" for host in HOSTS), "IP:127.0.0.1"])
    extensions.write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
    new_key = ("-newkey", "rsa:2048", "-nodes")
    _openssl("req", "-x509", *new_key, "-days", "30", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(ca))
    request = folder / f"{name}.request"
    _openssl("req", *new_key, "-subj", "/CN=acme.example", "-keyout", str(server), "-out", str(request))
    certificate = _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(key), "-CAcreateserial"),
        *("-days", "30", "-extfile", str(extensions)),
    )
    server.write_bytes(server.read_bytes() + certificate)
    return Authority(ca, server)


def _openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout  # noqa: S607


@contextlib.asynccontextmanager
async def serve_tls(authority: Authority, port: int) -> AsyncIterator[int]:
    """A server on loopback that ends TLS and forwards to a port; its own port."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await join(reader, writer, *await asyncio.open_connection("127.0.0.1", port))

    server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=authority.server_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    other_reader: asyncio.StreamReader,
    other_writer: asyncio.StreamWriter,
) -> None:
    """Forward between two connections until one of them ends."""

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                target.write(data)
                await target.drain()
        target.close()

    await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))
