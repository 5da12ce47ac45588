"""Generated histories of scans, corrections and aliases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from hypothesis import strategies as st

from service.model import INVALID_DURATION, Duration, Granularity, Measure
from tests.support.reference_fold import Value

STEPS = {Granularity.HOURLY: timedelta(hours=1), Granularity.DAILY: timedelta(days=1)}
BUCKETS = 6
FLOWS = ("f", "g")
NAMES = ("A", "B", "C", "%s'\"\\\u202e\n⚑")
HUGE = 2**63 - 1
LEAPS = (0, 1, 2, 31)  # expect_for, in buckets
SOURCES = {
    Measure.OUTCOMES: dict(zip(NAMES, NAMES, strict=True)),
    Measure.EXECUTIONS: dict(
        zip(NAMES, ("nFlow", "tFlowExit:", "tFlowExit:a:b", "tFlowDisconnect:%s"), strict=True)
    ),
    Measure.MILESTONES: dict(zip(NAMES, NAMES, strict=True)),
}
GROUPINGS = ((), ("mediaType",), ("flowVersion", "mediaType"))


@dataclass(frozen=True)
class ScanStep:
    """A scan of some windows, numbered ``late`` scans before the one that was merged last.

    One that is ``torn`` reports two figures for one outcome, and so fails after much of it was written.
    """

    granularity: Granularity
    stream: str
    first: int
    windows: int
    width: int
    flows: tuple[str, ...]
    figures: dict[tuple[int, str, str, str | None], Value]
    nameless: frozenset[tuple[int, str]]
    unplaced: frozenset[int]
    expect: int
    new_cycle: bool
    late: int
    torn: bool = False
    measure: Measure = Measure.OUTCOMES
    group_by: tuple[str, ...] = ()
    in_parts: bool = False


@dataclass(frozen=True)
class AgainStep:
    """The previous scan again."""

    new_cycle: bool


@dataclass(frozen=True)
class AliasStep:
    """An alias that is added or (``new`` is None) removed, and applied now or later."""

    flow: str | None
    old: str
    new: str | None
    apply: bool


Step = ScanStep | AgainStep | AliasStep

VALUE = st.builds(
    Value,
    st.sampled_from((0, 1, 2, 3, 40, HUGE, None)),
    st.sampled_from((None, 0.0, 0.25, 0.5, 1.0)),
    st.sampled_from((None, 0, 1, HUGE)),
    st.sampled_from((None, 0, 1)),
    st.sampled_from((None, 0, 2)),
    st.sampled_from(
        (
            None,
            Duration(1, 5, 5, 5),
            Duration(2, 10, 3, 7),
            Duration(2, 10, None, 7),
            Duration(1, HUGE, 1, 1),
            INVALID_DURATION,
        )
    ),
).map(lambda value: value if value.count is not None else Value(None))
FIGURES = st.dictionaries(
    st.tuples(
        st.integers(0, BUCKETS - 1),
        st.sampled_from(FLOWS),
        st.sampled_from(NAMES),
        st.sampled_from((None, "voice", "chat")),
    ),
    VALUE,
    max_size=8,
)
SCAN = st.builds(
    ScanStep,
    granularity=st.sampled_from([Granularity.DAILY, Granularity.DAILY, Granularity.DAILY, Granularity.HOURLY]),
    stream=st.sampled_from(("job:one", "job:one", "job:two", "ad hoc")),
    first=st.integers(0, BUCKETS - 1),
    windows=st.integers(1, 4),
    width=st.sampled_from((1, 1, 1, 2)),
    flows=st.sampled_from(((), (), (), ("f",), ("g",), ("f", "g"))),
    figures=FIGURES,
    nameless=st.frozensets(st.tuples(st.integers(0, BUCKETS - 1), st.sampled_from(FLOWS)), max_size=1),
    unplaced=st.frozensets(st.integers(0, BUCKETS - 1), max_size=1),
    expect=st.sampled_from((*LEAPS, 31, 31)),
    new_cycle=st.booleans(),
    late=st.sampled_from((0, 0, 0, 0, 1, 2)),
    torn=st.sampled_from((False,) * 7 + (True,)),
    measure=st.sampled_from([Measure.OUTCOMES] * 4 + [Measure.EXECUTIONS, Measure.MILESTONES]),
    group_by=st.sampled_from((GROUPINGS[0], *GROUPINGS)),
    in_parts=st.booleans(),
)
ALIAS = st.builds(
    AliasStep,
    flow=st.sampled_from((None, None, "f", "g")),
    old=st.sampled_from((*NAMES, "X")),
    new=st.sampled_from((*NAMES, "X", "Y", None)),
    apply=st.booleans(),
)
STEP = st.one_of(SCAN, SCAN, SCAN, st.builds(AgainStep, st.booleans()), ALIAS)
HISTORY = st.lists(STEP, min_size=1, max_size=10)
