"""What would a run have to change to hold less memory of its machine's own? Asked when a machine had too little for it.

The machine's own memory, not its GPUs': there a process is killed without having been told. The keys are those that ``sdpo plan``
suggests, of those which a continued run may change.
"""

from __future__ import annotations

from sdpo.config import Config
from sdpo.errors import UserError
from sdpo.planning.cpu_plan import cpu_plan
from sdpo.planning.gpu_plan import Machine, gpu_plan
from sdpo.planning.request import gpus_per_node
from sdpo.planning.shapes import ModelShape, external_shape, shape_of
from sdpo.planning.suggestions import suggestions
from sdpo.planning.terms import GIB, total
from sdpo.run.folder import may_change

_LESS = 0.9
"""Share of what the run holds by its plan that another way may hold: what held that much was too much."""


def lighter(config: Config, model_path: str) -> str:
    """A sentence on what the plan of the run says, and which keys would make it hold a tenth less or more."""
    try:
        gpus, shape = gpus_per_node(config), shape_of(model_path)
        held = _host_gib(config, shape, gpus)
    except UserError:
        return "Run sdpo plan with the same words: it shows what each process holds."

    def fits(other: Config) -> bool:
        try:
            return _host_gib(other, shape, gpus) <= _LESS * held
        except UserError:
            return False

    ways = suggestions(config, shape, fits, is_gpu=gpus > 0, may_turn=may_change)
    begins = f"By sdpo plan the run holds {held:.1f} GiB of a machine's memory at its peak"
    if not ways:
        return f"{begins}; no key that a continued run may change makes that a tenth less. It needs a machine with more."
    words = "; or ".join(" ".join(turn.word for turn in way) for way in ways)
    return f"{begins}. Less would do with {words}."


def _host_gib(config: Config, shape: ModelShape, gpus: int) -> float:
    """GiB of the node that holds most."""
    machine = Machine(gpus_per_node=gpus, gpu_gib=1e6, host_gib=None, joins_cluster=config.cluster.address is not None)
    external = external_shape(config)
    if gpus > 0:
        return max(total(terms) for _, terms in gpu_plan(config, shape, external, machine).hosts) / GIB
    return cpu_plan(config, shape, external, machine).machine_gib
