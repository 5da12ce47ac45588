"""Queries that only read.

::

    status        windows, leases and errors
    dashboard     the page's calendar, windows and restatements
    week          every flow of an org over the last days
    flow_figures  one flow's outcomes over time
    history       how a flow's figures changed
    figures_csv   figures as CSV
    timeline      what happened lately
    summary       how much is stored
    rejects       rejected entries
    lost_figures  complete windows whose figures are not stored
    suggestions   suggested aliases
"""
