"""The simulated Genesys Cloud: a contact centre, and a server that answers for it as strictly as the real one.

The contact centre (:mod:`~service.simulator.centre`) knows nothing of any API; a dialect
(:mod:`~service.simulator.query_builder`) knows nothing of how figures come about. Nothing here is shared with the
client's side of the program, so that a mistake there is not repeated here and thereby hidden.
"""

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
