"""An Iceberg REST catalog on loopback, over pyiceberg's SQL catalog in a file; it chooses where tables are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest, Table
from sqlalchemy import NullPool, create_engine

TOKEN = "a-token-of-the-catalog"


class _Handler(BaseHTTPRequestHandler):
    catalog: SqlCatalog
    turn: threading.Lock

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the library's
        """Log nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, _error("NotAuthorizedException", 401, "the token is not accepted"))
            return
        try:
            with self.turn:
                document = self._route(json.loads(body) if body else {})
        except (NoSuchNamespaceError, NoSuchTableError) as error:
            self._send(404, _error(type(error).__name__.replace("Error", "Exception"), 404, str(error)))
        except CommitFailedException as error:
            self._send(409, _error("CommitFailedException", 409, str(error)))
        else:
            self._send(200 if document is not None else 204, document)

    def _route(self, given: dict[str, Any]) -> dict[str, Any] | None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        document: dict[str, Any] | None = None
        match self.command, *parts[1:]:
            case "GET", "config":
                document = {"defaults": {}, "overrides": {}}
            case "POST", "namespaces":
                self.catalog.create_namespace_if_not_exists(".".join(given["namespace"]))
                document = {"namespace": given["namespace"], "properties": {}}
            case "GET", "namespaces", namespace:
                document = {
                    "namespace": [namespace],
                    "properties": self.catalog.load_namespace_properties(namespace),
                }
            case "POST", "namespaces", namespace, "tables":
                document = self._create(namespace, given)
            case "GET", "namespaces", namespace, "tables", table:
                document = _loaded(self.catalog.load_table((namespace, table)))
            case "POST", "namespaces", namespace, "tables", table:
                request = CommitTableRequest.model_validate(given)
                stored = self.catalog.load_table((namespace, table))
                done = self.catalog.commit_table(stored, request.requirements, request.updates)
                document = json.loads(done.model_dump_json(by_alias=True))
            case "DELETE", "namespaces", namespace, "tables", table:
                self.catalog.drop_table((namespace, table))
            case _:
                raise NoSuchTableError(self.path)
        return document

    def _create(self, namespace: str, given: dict[str, Any]) -> dict[str, Any]:
        assert given.get("location") is None, "a client leaves the location to this catalog"
        return _loaded(
            self.catalog.create_table(
                (namespace, given["name"]),
                Schema.model_validate(given["schema"]),
                partition_spec=PartitionSpec.model_validate(given["partition-spec"]),
                properties=given.get("properties") or {},
            )
        )

    def _send(self, status: int, document: dict[str, Any] | None) -> None:
        body = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _loaded(table: Table) -> dict[str, Any]:
    metadata = json.loads(table.metadata.model_dump_json(by_alias=True))
    return {"metadata-location": table.metadata_location, "metadata": metadata, "config": {}}


def _error(kind: str, code: int, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "code": code, "message": message}}


@contextmanager
def running_rest_catalog(folder: Path) -> Iterator[str]:
    """The catalog's URL; its tables are under ``folder``."""
    folder.mkdir()
    uri = f"sqlite:///{folder}/catalog.db"
    catalog = SqlCatalog("server", uri=uri, warehouse=f"file://{folder}/chosen")
    catalog.engine.dispose()
    catalog.engine = create_engine(uri, poolclass=NullPool)
    handler = type("Handler", (_Handler,), {"catalog": catalog, "turn": threading.Lock()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
