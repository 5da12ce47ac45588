"""Queries in Daft on Ray, with their rows as JSON lines; runs in Daft's environment, with a file of queries."""

import io
import json
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import daft  # type: ignore[import-not-found] # in an environment of its own
import ray  # type: ignore[import-not-found]
from daft import col
from pyiceberg.catalog import load_catalog
from ray._private.state import actors  # type: ignore[import-not-found]

NODES_WITHIN = 120.0  # seconds


def main() -> None:
    """Run each query of the order, whose columns of ``instants`` are returned as microseconds."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    daft.set_runner_ray(address=order["address"])
    _wait_for_nodes(order["nodes"])
    catalog = load_catalog("flow_outcomes", type="sql", uri=order["catalog"])
    for query in order["queries"]:
        table = catalog.load_table(f"flow_outcomes.{query['table']}")
        frame = daft.read_iceberg(table, tag=query.get("tag"))
        frame = _filtered(frame, query)
        frame = _sums(frame) if query.get("sums") else _rows(frame, query)
        plan = io.StringIO()
        frame.explain(show_all=True, file=plan)
        began = time.monotonic()
        columns = frame.to_pydict()
        answer = {
            "rows": list(zip(*columns.values(), strict=True)),
            "seconds": time.monotonic() - began,
            "scan_tasks": int(re.findall(r"Num Scan Tasks = (\d+)", plan.getvalue())[-1]),  # of the physical plan
        }
        print(json.dumps(answer))  # noqa: T201 - the result
    print(json.dumps({"nodes": len({actor["Address"]["NodeID"] for actor in actors().values()})}))  # noqa: T201


def _filtered(frame: Any, query: dict[str, Any]) -> Any:  # noqa: ANN401 - of Daft
    if "org" not in query:
        return frame
    since, until = (datetime.fromisoformat(at) for at in query["span"])
    start = col("bucket_start")
    return frame.where((col("org") == query["org"]) & (start >= since) & (start < until))


def _rows(frame: Any, query: dict[str, Any]) -> Any:  # noqa: ANN401 - of Daft
    return frame.select(
        *(
            col(name).cast(daft.DataType.int64()) if name in query["instants"] else col(name)
            for name in query["columns"]
        )
    )


def _sums(frame: Any) -> Any:  # noqa: ANN401 - of Daft
    """Return rows and count of each org and UTC month."""
    month = col("bucket_start").strftime("%Y-%m").alias("month")
    grouped = frame.groupby(col("org"), month)
    return grouped.agg(col("flow_id").count().alias("rows"), col("outcome_count").sum().alias("outcomes"))


def _wait_for_nodes(number: int) -> None:
    until = time.monotonic() + NODES_WITHIN
    while (alive := sum(node["Alive"] for node in ray.nodes())) < number:
        if time.monotonic() > until:
            raise TimeoutError(f"{alive} of {number} nodes after {NODES_WITHIN:g} s")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
