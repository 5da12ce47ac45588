"""The rows of a normalised page, whether its entries were valid or not."""

from __future__ import annotations

from collections.abc import Sequence

from service.model import Entry, NormalisedPage, OutcomeRow, ValidEntry


def rows_of(found: NormalisedPage) -> list[OutcomeRow]:
    """Return all rows, those of valid entries first."""
    return [
        OutcomeRow(bucket, name, figure.outcome_count, figure.percent_of_total, rejected=False)
        for bucket, outcomes in found.valid
        for name, figure in outcomes.items()
    ] + found.rows


def plain(entries: Sequence[Entry | ValidEntry]) -> list[Entry]:
    """Return the entries, each in the form that is validated outcome by outcome."""
    return [entry.as_entry() if isinstance(entry, ValidEntry) else entry for entry in entries]
