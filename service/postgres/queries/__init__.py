"""Queries that only read.

::

    status     windows, leases and errors
    dashboard  the page's calendar, windows and restatements
    series     a flow's outcomes over time
    summary    how much is stored
    export     figures for a warehouse
    rejects    rejected entries
    lost_figures  complete windows whose figures are not stored
    suggestions  suggested aliases
"""
