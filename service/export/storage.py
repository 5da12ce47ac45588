"""The file systems in which tables are, as pyiceberg opens them."""

from __future__ import annotations

from pyarrow.fs import FileSystem
from pyiceberg.io import ADLS_ACCOUNT_NAME, ADLS_BLOB_STORAGE_AUTHORITY, ADLS_DFS_STORAGE_AUTHORITY, FileIO
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

_AZURE = ("abfs", "abfss", "wasb", "wasbs")
_PUBLIC_CLOUD = "dfs.core.windows.net"


class WarehouseFileIO(PyArrowFileIO):
    """pyiceberg's file system by pyarrow, which also opens ``abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH``.

    pyiceberg 0.12 takes ``CONTAINER@ACCOUNT…`` for the container's name, and gives pyarrow no account. Spark,
    Trino and the warehouses accept this form alone.
    """

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Scheme, host, and the path as pyarrow has it."""
        scheme, host, path = PyArrowFileIO.parse_location(location, properties)
        container, at, _ = host.partition("@")
        if scheme in _AZURE and at:
            path = container + path.removeprefix(host)
        return scheme, host, path

    def _initialize_fs(self, scheme: str, netloc: str | None = None) -> FileSystem:
        _, at, host = (netloc or "").partition("@")
        if scheme in _AZURE and at:
            self.properties = _azure_properties(host) | self.properties
        return super()._initialize_fs(scheme, netloc)


def _azure_properties(host: str) -> dict[str, str]:
    """The properties of an account's host; those of a sovereign cloud have other domains."""
    account, _, domain = host.partition(".")
    properties = {ADLS_ACCOUNT_NAME: account}
    if domain and domain != _PUBLIC_CLOUD:
        properties[ADLS_DFS_STORAGE_AUTHORITY] = f".{domain}"
        properties[ADLS_BLOB_STORAGE_AUTHORITY] = f".{domain.replace('dfs.', 'blob.', 1)}"
    return properties


def path_of(location: str) -> str:
    """The path in its file system, as a listing has it."""
    return WarehouseFileIO.parse_location(location)[2]


def file_system(io: FileIO, location: str) -> FileSystem | None:
    """The file system of a location; None where pyiceberg uses another one than pyarrow's."""
    if not isinstance(io, PyArrowFileIO):
        return None
    scheme, host, _ = io.parse_location(location)
    return io.fs_by_scheme(scheme, host)
