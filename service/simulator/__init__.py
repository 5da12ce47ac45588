"""The simulated Genesys Cloud: a contact centre, and a server that answers for it as strictly as the real one.

The contact centre (:mod:`~service.simulator.centre`) knows nothing of any API; a dialect
(:mod:`~service.simulator.query_builder`) knows nothing of how figures come about. Nothing here is shared with the
client's side of the program, so that a mistake there is not repeated here and thereby hidden.

A name's module is imported when the name is first used: the command line declares arguments without the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.simulator.centre import Centre, Flow, GeneratedCentre
    from service.simulator.corrected import CorrectedCentre
    from service.simulator.faults import Fault, Faults
    from service.simulator.organisation import SimulatedOrg, SimulatorConfig
    from service.simulator.server import Simulator
    from service.simulator.state import Arrival
    from service.simulator.static import StaticCentre

__all__ = [
    "Arrival",
    "Centre",
    "CorrectedCentre",
    "Fault",
    "Faults",
    "Flow",
    "GeneratedCentre",
    "SimulatedOrg",
    "Simulator",
    "SimulatorConfig",
    "StaticCentre",
]

_MODULES = {
    "Arrival": "service.simulator.state",
    "Centre": "service.simulator.centre",
    "CorrectedCentre": "service.simulator.corrected",
    "Fault": "service.simulator.faults",
    "Faults": "service.simulator.faults",
    "Flow": "service.simulator.centre",
    "GeneratedCentre": "service.simulator.centre",
    "SimulatedOrg": "service.simulator.organisation",
    "Simulator": "service.simulator.server",
    "SimulatorConfig": "service.simulator.organisation",
    "StaticCentre": "service.simulator.static",
}


def __getattr__(name: str) -> object:
    """Import the module of a name of ``__all__``."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
