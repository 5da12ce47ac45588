"""PostgreSQL: the only room with SQL.

::

    pool              the connection pool, and the driver's errors as the program's
    session           the settings of every session
    storage           whether the server has room for what is written
    migrate           schema migrations
    migration_locks   what a migration waits for
    probe             a single connection outside the pool, and checks on it
    kept_connections  connections that only read, kept for the next reader
    aliases           the mapping table
    names             names of flows and outcomes
    suggestions       which suggested aliases were logged
    retention         how long an org keeps its data
    prune             removes old months
    prune_dates       the dates before which an org has no figures
    fdw               one PostgreSQL over several installations
    revision          the time stamp of a merge
    lease/            which process works an org
    windows/          the ledger of windows, and requested ad hoc windows
    merge/            one scan into the tables
    queries/          queries that only read
    export/           what an export reads, and its lease
    embedded/         the embedded PostgreSQL
"""
