"""Reads; nothing here writes.

::

    status     windows, leases and errors
    dashboard  what the page shows
    series     a flow's outcomes over time
    summary    what is stored, in a few figures
    export     figures for a warehouse
    rejects    rejected entries
"""
