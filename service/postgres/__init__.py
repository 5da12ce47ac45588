"""PostgreSQL: the only room with SQL.

::

    pool       the connection pool, and the driver's errors as the program's
    session    the settings of every session
    migrate    schema migrations
    probe      a single connection outside the pool, and checks on it
    aliases    the mapping table
    names      names of flows and outcomes
    suggestions  which suggested aliases were logged
    revision   the time stamp of a merge
    lease/     which process works an org
    windows/   the ledger of windows, and requested ad hoc windows
    merge/     one scan into the tables
    queries/   queries that only read
    embedded/  the embedded PostgreSQL
"""
