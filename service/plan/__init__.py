"""Which windows to query, when, and in which queries. Pure: no I/O, and no clock is read.

::

    calendar      where hours, days, weeks and months begin in a time zone
    buckets       the buckets of a granularity
    granularity   how wide a span may be; widening, coarsening, cutting
    windows       a job's windows, and when each is due
    selection     the windows of a cycle, in order
    grouping      adjacent windows as scans, spans as queries
    splitting     queries in parts: by flows, by time
    narrowing     how wide the next query is, after queries that were too wide
    forecast      the requests that windows need
    retention     jobs that begin before the end of an org's retention
"""
