"""dlt into PostgreSQL: ``python -m benchmarks.peers.with_dlt default|tuned URL DAYS DSN FOLDER``.

``default`` is ``merge`` with a primary key, as documented; ``tuned`` writes CSV, which dlt loads with COPY, and
upserts. Rows are yielded as one list per page, which is the fast way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

KEY = ["flow_id", "bucket_start", "outcome_name"]


def main() -> None:
    """Run the pipeline once."""
    mode, url, days, dsn, folder = sys.argv[1:]
    # dlt reads these when it is imported
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "DLT_DATA_DIR": folder}
    import dlt  # noqa: PLC0415 - see above

    from benchmarks.peers.pages import rows  # noqa: PLC0415 - with it

    tuned = mode == "tuned"

    @dlt.resource(
        name="flow_outcome",
        primary_key=KEY,
        write_disposition={"disposition": "merge", "strategy": "upsert"} if tuned else "merge",
        columns={"bucket_start": {"data_type": "timestamp"}, "bucket_end": {"data_type": "timestamp"}},
    )
    def flow_outcome() -> Iterator[list[dict[str, Any]]]:
        yield from rows(url, int(days))

    pipeline = dlt.pipeline(
        pipeline_name=f"benchmark_{mode}",
        destination=dlt.destinations.postgres(dsn),
        dataset_name=f"dlt_{mode}",
        pipelines_dir=folder,
    )
    pipeline.run(flow_outcome(), **({"loader_file_format": "csv"} if tuned else {}))
    with pipeline.sql_client() as client:
        (count,) = client.execute_sql("SELECT count(*) FROM flow_outcome")[0]
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main()
