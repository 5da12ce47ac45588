"""What to ask, and when: pure functions without I/O that never read the clock.

::

    edges         where hours, days, weeks and months begin in a time zone
    buckets       the steps of a granularity, built on the edges
    granularity   how wide a span may be; coarsening, widening and cutting
    windows       the windows that a job owes, and when each is due
    due           which of them a cycle takes, in what order
    scans         adjacent windows in one scan, spans as queries, halves of a query
"""
