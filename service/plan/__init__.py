"""What to request, and when: pure functions without I/O that never read the clock.

::

    calendar      where hours, days, weeks and months begin in a time zone
    buckets       the steps of a granularity, built on the calendar
    granularity   how wide a span may be; coarsening, widening and cutting
    windows       the windows of a job, and when each is due
    selection     which of them a cycle takes, in what order
    grouping      adjacent windows in one scan, spans as queries
    splitting     halves of a query
    forecast      what windows will cost
"""
