"""The instant from which a reader sees a merge or a renaming."""

from __future__ import annotations

# The last act of its transaction: the instant from which a reader sees it. Never earlier than the one before,
# whatever the clock did. not_after is given where the database's clock is far ahead of the time that decides: once
# that clock is right, a stamp of the future would hide the version from who reads the figures as of now.
STAMP = """
    WITH counted AS (
        UPDATE flow_outcomes.org SET revision = %(revision)s WHERE org = %(org)s
    )
    INSERT INTO flow_outcomes.revision (org, revision, stamped_at)
    SELECT %(org)s, %(revision)s,
           greatest(least(clock_timestamp(), %(not_after)s::timestamptz),
                    max(stamped_at) + interval '1 microsecond')
    FROM (SELECT stamped_at FROM flow_outcomes.revision WHERE org = %(org)s
          ORDER BY revision DESC LIMIT 1) latest
"""
