"""SQL lives here alone.

::

    pool       connections, and one place where a driver's error becomes ours
    session    the settings of every session
    migrate    the schema up and down
    probe      a connection outside the pool, for those who only read
    aliases    the table of aliases
    names      names of flows and outcomes
    revision   the time stamp of a merge
    lease/     which process works an org
    windows/   the ledger of windows, and ad hoc requests
    merge/     one scan into the tables
    queries/   reads
    embedded/  a PostgreSQL of our own
"""
