"""The simulated Genesys Cloud: a contact centre, and a server that validates requests as strictly as the real one.

A contact centre (:mod:`~service.simulator.centre`) generates figures and is independent of any API. The dialects
(:mod:`~service.simulator.query_builder`, :mod:`~service.simulator.flow_aggregates`) answer requests from them. The
simulator shares no code with the client, so that it does not repeat the client's mistakes and hide them.

A name's module is imported when the name is first used, so that the command line is parsed without the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.simulator.buckets import TimeGroup
    from service.simulator.builder_query import cardinality_exceeded
    from service.simulator.centre import Centre, Flow, GeneratedCentre, OutcomeCount, RecordRun
    from service.simulator.corrected_centre import CorrectedCentre
    from service.simulator.faults import FAULT_NAMES, PUBLIC_FAULTS, Fault, Faults
    from service.simulator.organisation import SimulatedOrg, SimulatorConfig
    from service.simulator.server import Simulator
    from service.simulator.state import Arrival, Measure
    from service.simulator.static_centre import StaticCentre

__all__ = [
    "FAULT_NAMES",
    "PUBLIC_FAULTS",
    "Arrival",
    "Centre",
    "CorrectedCentre",
    "Fault",
    "Faults",
    "Flow",
    "GeneratedCentre",
    "Measure",
    "OutcomeCount",
    "RecordRun",
    "SimulatedOrg",
    "Simulator",
    "SimulatorConfig",
    "StaticCentre",
    "TimeGroup",
    "cardinality_exceeded",
]

_MODULES = {
    "FAULT_NAMES": "faults",
    "PUBLIC_FAULTS": "faults",
    "Arrival": "state",
    "Centre": "centre",
    "CorrectedCentre": "corrected_centre",
    "Fault": "faults",
    "Faults": "faults",
    "Flow": "centre",
    "GeneratedCentre": "centre",
    "Measure": "state",
    "OutcomeCount": "centre",
    "RecordRun": "centre",
    "SimulatedOrg": "organisation",
    "Simulator": "server",
    "SimulatorConfig": "organisation",
    "StaticCentre": "static_centre",
    "TimeGroup": "buckets",
    "cardinality_exceeded": "builder_query",
}


def __getattr__(name: str) -> object:
    """Import the module of a name of ``__all__``."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
