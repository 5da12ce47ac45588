"""Every row of a page, however it was judged."""

from __future__ import annotations

from collections.abc import Sequence

from service.model import Entry, NormalisedPage, OutcomeRow, ValidEntry


def rows_of(found: NormalisedPage) -> list[OutcomeRow]:
    """The rows, those of sound entries first."""
    return [
        OutcomeRow(bucket, name, figure.outcome_count, figure.percent_of_total, rejected=False)
        for bucket, outcomes in found.valid
        for name, figure in outcomes.items()
    ] + found.rows


def plain(entries: Sequence[Entry | ValidEntry]) -> list[Entry]:
    """The entries, each as one that is judged piece by piece."""
    return [entry.as_entry() if isinstance(entry, ValidEntry) else entry for entry in entries]
