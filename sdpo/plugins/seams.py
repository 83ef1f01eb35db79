"""The seams, each with the names that are ours: to add one of ours, write its file and its line here.

What an installed package adds comes by the entry points of the group; what a file holds is named by its path.
"""

from __future__ import annotations

from sdpo.plugins.seam import Seam

STRATEGIES = Seam(
    what="strategy",
    group="sdpo.strategies",
    built_in={
        "best_of_k": "sdpo.solving.strategy:BEST_OF_K",
        "multi_turn": "sdpo.solving.strategy:MULTI_TURN",
        "sdpo": "sdpo.solving.strategy:SDPO",
        "sdpo_multi_turn": "sdpo.solving.strategy:SDPO_MULTI_TURN",
    },
)
"""How a task is tried again at test time: ``sdpo.solving.strategy.Strategy``."""

DIVERGENCES = Seam(
    what="divergence",
    group="sdpo.divergences",
    built_in={
        "reverse_kl": "sdpo.objectives.divergence:ReverseKL.of",
        "forward_kl": "sdpo.objectives.divergence:ForwardKL.of",
        "jsd": "sdpo.objectives.divergence:JensenShannon.of",
    },
)
"""How student and teacher are compared: what makes a ``sdpo.objectives.divergence.Divergence`` of the algorithm's config."""

TEACHERS = Seam(
    what="teacher",
    group="sdpo.teachers",
    built_in={
        "ema": "sdpo.config.teacher:EmaTeacher",
        "live": "sdpo.config.teacher:LiveTeacher",
        "frozen": "sdpo.config.teacher:FrozenTeacher",
        "on_gain": "sdpo.config.teacher:OnGainTeacher",
        "trust_region": "sdpo.config.teacher:TrustRegionTeacher",
        "external": "sdpo.config.teacher:ExternalTeacher",
    },
)
"""Which models teach: a dataclass, a ``sdpo.config.TeacherConfig``."""

HINT_SOURCES = Seam(what="hint source", group="sdpo.hints", built_in={})
"""What the teacher is shown besides siblings and feedback: a class, a ``sdpo.hindsight.sources.HintSource``."""
FILTERS = Seam(what="token filter", group="sdpo.filters", built_in={})
"""Which tokens nothing is learned from: a class, a ``sdpo.protocols.TokenFilter``."""
TASK_ORDERS = Seam(
    what="task order",
    group="sdpo.task_orders",
    built_in={
        "epochs": "sdpo.attempts.task_orders:Epochs",
        "adaptive": "sdpo.attempts.task_orders:Adaptive",
    },
)
"""Which tasks a step asks: a class, a ``sdpo.protocols.TaskOrder``."""
WEIGHT_SYNCS = Seam(
    what="weight sync",
    group="sdpo.weight_syncs",
    built_in={"object_store": "sdpo.cluster.weight_sync:ObjectStore"},
)
"""How weights get from the learner's ranks to the engines: a class, a ``sdpo.protocols.WeightSync``."""
