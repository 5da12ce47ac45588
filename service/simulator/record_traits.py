"""What a record of a contact centre was about: medium, version, language, value, durations, exit, milestones.

The traits of a flow's records repeat after ``SLOTS`` records. A pattern of that length is a hash of flow, outcome
and published version, so that an interval's records by trait follow from their numbers alone. The parts of any
interval add up to it, by every trait.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias

from service.simulator.instants import DAY, MINUTE
from service.simulator.sample_names import LANGUAGES, MILESTONES

SLOTS = 32
"""Records after which a pattern repeats."""

VARIANTS = 2
"""Patterns of an outcome and version; days alternate between them, in no simple order."""

Kind: TypeAlias = Literal["transfer", "abandonment", "self-service", "other"]
"""What an outcome stands for."""

KINDS: Mapping[str, Kind] = {
    "TransferredToQueue": "transfer",
    "Abandoned": "abandonment",
    "Self Service Completed": "self-service",
}
"""The kind of an outcome by its name; any other name is of the kind ``other``."""

SUCCESS, FAILURE, UNKNOWN = "SUCCESS", "FAILURE", "UNKNOWN"
_FIRST_PUBLICATION = 16_436 * DAY  # 2015-01-01
_CONTACTS = 8
_PATTERNS_CACHED = 8192
_SUCCESSES: Mapping[Kind, int] = {"transfer": 235, "abandonment": 12, "self-service": 205, "other": 170}
_TRANSFERS: Mapping[Kind, int] = {"transfer": 244, "abandonment": 8, "self-service": 20, "other": 70}
_MESSAGE_TYPES = ("webmessaging", "whatsapp", "sms")


class Execution(NamedTuple):
    """One execution of a flow.

    Attributes:
        exit_reason: why it ended.
        metric: ``tFlowExit`` if the interaction went on elsewhere, ``tFlowDisconnect`` if it ended there.
        milliseconds: how long it took.
    """

    exit_reason: str
    metric: Literal["tFlowExit", "tFlowDisconnect"]
    milliseconds: int


class Slot(NamedTuple):
    """The traits of one record: an outcome that a flow reported.

    Attributes:
        value: SUCCESS, FAILURE or UNKNOWN.
        milliseconds: how long the outcome took; None where that was not measured.
        contact: dimensions of the interaction; one that it lacks is absent.
        executions: executions of the flow that are counted with this record. None: the outcome is a further one of
            the same execution. Two: one more ended without any outcome.
        milestones: reached milestones by id, and how often.
    """

    value: str
    milliseconds: int | None
    contact: Mapping[str, str]
    executions: tuple[Execution, ...]
    milestones: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class FlowTraits:
    """The traits that all records of a flow share.

    Attributes:
        flow_type: the type, as Architect names it.
        contacts: the kinds of interaction that the flow serves.
        milestones: ids of its milestones, in the order in which they are reached.
        period: time between two publications, in milliseconds.
        phase: the first publication, in milliseconds since 1970.
    """

    flow_type: str
    contacts: tuple[Mapping[str, str], ...]
    milestones: tuple[str, ...]
    period: int
    phase: int

    def version(self, at: int) -> int:
        """Return the number of the version that is published at an instant, at least 1."""
        return max(1, (at - self.phase) // self.period + 2)

    def versions(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return the parts of [start, end) in each of which one version is published, with its number."""
        parts = []
        while start < end:
            number = self.version(start)
            until = min(end, self.phase + (number - 1) * self.period)
            parts.append((start, until, number))
            start = until
        return parts


def slot_offset(outcome_id: str, origin: int) -> int:
    """Return the pattern's slot of the first record of an origin; see ``RecordRun``."""
    return (_outcome_salt(outcome_id) + origin * 11) % SLOTS


def variant(origin: int) -> int:
    """Return the number of the pattern that an origin's records follow."""
    return (origin * 2_654_435_761 >> 15) % VARIANTS


@cache
def milestone_id(name: str) -> str:
    """Return the id of a milestone by its first name."""
    return str(uuid.UUID(bytes=blake2b(f"milestone:{name}".encode(), digest_size=16).digest(), version=4))


@lru_cache(4096)
def flow_traits(flow_id: str) -> FlowTraits:
    """Return a flow's traits, a hash of its id."""
    source = blake2b(f"flow:{flow_id}".encode(), digest_size=64).digest()
    kind = source[0] % 8
    flow_type = "BOT" if kind == 0 else "INBOUNDSHORTMESSAGE" if kind == 1 else "INBOUNDCALL"
    media = {
        "BOT": ("voice", "voice", "message", "chat"),
        "INBOUNDSHORTMESSAGE": ("message", "message", "message", "chat"),
        "INBOUNDCALL": ("voice", "voice", "voice", "callback"),
    }[flow_type]
    period = (30 + source[1] % 45) * DAY
    first = source[2] % len(MILESTONES)
    return FlowTraits(
        flow_type=flow_type,
        contacts=tuple(_contact(media[number % len(media)], source, number) for number in range(_CONTACTS)),
        milestones=tuple(
            milestone_id(MILESTONES[(first + step) % len(MILESTONES)]) for step in range(source[3] % 5)
        ),
        period=period,
        phase=_FIRST_PUBLICATION
        + source[4] % (period // DAY) * DAY
        + (8 * 60 + int.from_bytes(source[5:7], "big") % (9 * 60)) * MINUTE,
    )


@lru_cache(_PATTERNS_CACHED)
def pattern(flow_id: str, outcome_id: str, kind: Kind, version: int, number: int) -> tuple[Slot, ...]:
    """Return the traits of ``SLOTS`` successive records of an outcome."""
    traits = flow_traits(flow_id)
    source = blake2b(f"{flow_id}:{outcome_id}:{version}:{number}".encode(), digest_size=64).digest()
    progress = blake2b(f"{flow_id}:{version}".encode(), digest_size=2).digest()
    successes = min(250, max(6, _SUCCESSES[kind] + _outcome_salt(outcome_id) % 24 - 12 + progress[0] % 32 - 16))
    pace = (8_000 + _outcome_salt(outcome_id) % 90_000) * (200 + progress[1] % 100) // 250
    return tuple(_slot(traits, kind, successes, pace, source[2 * at], source[2 * at + 1]) for at in range(SLOTS))


def _slot(traits: FlowTraits, kind: Kind, successes: int, pace: int, one: int, other: int) -> Slot:
    """Return a record's traits from two bytes."""
    mixed = (one * 31 + other * 17) % 256
    value = SUCCESS if one < successes else UNKNOWN if other % 8 == 0 else FAILURE
    spent = pace * (64 + mixed) // 160 + one
    executions: list[Execution] = []
    if mixed % 8:
        executions.append(_execution(kind, value, spent, other))
    if mixed % 16 == 1:
        executions.append(Execution("DISCONNECT", "tFlowDisconnect", 1_500 + other * 40))
    depth = 0 if not executions else min(len(traits.milestones), other % 6)
    return Slot(
        value=value,
        milliseconds=None if value == UNKNOWN or mixed % 32 == 5 else spent,  # noqa: PLR2004 - any one of 32
        contact=traits.contacts[mixed // 3 % _CONTACTS],
        executions=tuple(executions),
        milestones=tuple(
            (each, 2 if step == depth - 1 and one % 4 == 0 else 1)
            for step, each in enumerate(traits.milestones[:depth])
        ),
    )


def _execution(kind: Kind, value: str, spent: int, other: int) -> Execution:
    """Return the execution in which an outcome was reported: it took longer than the outcome."""
    total = spent + 2_000 + other * 90
    if other < _TRANSFERS[kind]:
        return Execution("TRANSFER", "tFlowExit", total)
    if value == UNKNOWN:
        return Execution("FLOW_ERROR_DISCONNECT", "tFlowDisconnect", total)
    return Execution("FLOW_DISCONNECT" if value == SUCCESS else "DISCONNECT", "tFlowDisconnect", total)


def _contact(media: str, source: bytes, number: int) -> Mapping[str, str]:
    """Return the dimensions of an interaction; a message has no dialled number, a call no message type."""
    starting = LANGUAGES[(source[8] + (source[9 + number] % 5 == 0)) % len(LANGUAGES)]
    contact = {"mediaType": media, "direction": "outbound" if media == "callback" else "inbound"}
    contact["startingLanguage"] = starting
    if source[20 + number] % 6:
        contact["endingLanguage"] = starting if source[20 + number] % 3 else LANGUAGES[source[8] % len(LANGUAGES)]
    if media == "message":
        contact["messageType"] = _MESSAGE_TYPES[source[30 + number] % len(_MESSAGE_TYPES)]
    if media in ("voice", "callback"):
        contact["dnis"] = f"tel:+1317555{1000 + source[40] * 2 + number % 2}"
    if media == "callback":
        contact["entryType"] = "outbound"
    elif source[50 + number] % 4 == 0:
        contact["entryType"] = "flow"
        contact["entryReason"] = str(uuid.UUID(bytes=source[41:57], version=4))
    elif "dnis" in contact:
        contact |= {"entryType": "dnis", "entryReason": contact["dnis"]}
    else:
        contact["entryType"] = "direct"
    return contact


@lru_cache(4096)
def _outcome_salt(outcome_id: str) -> int:
    return int.from_bytes(blake2b(outcome_id.encode(), digest_size=6).digest(), "big")
