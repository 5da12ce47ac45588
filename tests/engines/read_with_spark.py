"""Queries in Spark, with their rows as JSON lines; runs in Spark's environment, with a file of queries."""

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession  # type: ignore[import-not-found] # in an environment of its own


def main() -> None:
    """Run each query of the order, whose columns of ``instants`` are returned as microseconds."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    builder = SparkSession.builder.master("local[1]")
    for name, value in order["settings"].items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    for query in order["queries"]:
        frame = spark.sql(query["statement"])
        columns = [
            f"unix_micros({name}) AS {name}" if name in query["instants"] else name for name in query["columns"]
        ]
        rows = [list(row) for row in frame.selectExpr(*columns).collect()]
        plan = frame._jdf.queryExecution().executedPlan().toString()
        print(json.dumps({"rows": rows, "plan": plan}))  # noqa: T201 - the result
    spark.stop()


if __name__ == "__main__":
    main()
