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

HINDSIGHT_LOSSES = Seam(
    what="loss of hindsight",
    group="sdpo.hindsight_losses",
    built_in={
        "divergence": "sdpo.objectives.hindsight_losses:DivergenceLoss.of",
        "gated": "sdpo.objectives.hindsight_losses:GatedLoss.of",
        "evidence": "sdpo.objectives.hindsight_losses:EvidenceWeights.of",
    },
)
"""What a token learns from its hindsight credit: what makes a ``sdpo.objectives.hindsight_losses.HindsightLoss`` of the
algorithm's config."""

POLICY_LOSSES = Seam(
    what="policy-gradient loss",
    group="sdpo.policy_losses",
    built_in={
        "clipped": "sdpo.objectives.policy_gradient:clipped_loss",
        "cispo": "sdpo.objectives.policy_gradient:cispo_loss",
    },
)
"""What is minimised of a token, given its ratio and its advantage: a ``sdpo.objectives.policy_gradient.PolicyLoss``."""

ADVANTAGES = Seam(
    what="advantage",
    group="sdpo.advantages",
    built_in={
        "group": "sdpo.objectives.advantage:over_groups",
        "leave_one_out": "sdpo.objectives.advantage:leave_one_out",
        "batch": "sdpo.objectives.advantage:over_batch",
        "group_then_batch": "sdpo.objectives.advantage:over_groups_then_batch",
    },
)
"""How much better than what an attempt was: a ``sdpo.objectives.advantage.Advantage``, of the rewards of a step."""

TEACHERS = Seam(
    what="teacher",
    group="sdpo.teachers",
    built_in={
        "ema": "sdpo.config.teacher:EmaTeacher",
        "live": "sdpo.config.teacher:LiveTeacher",
        "frozen": "sdpo.config.teacher:FrozenTeacher",
        "on_gain": "sdpo.config.teacher:OnGainTeacher",
        "periodic": "sdpo.config.teacher:PeriodicTeacher",
        "trust_region": "sdpo.config.teacher:TrustRegionTeacher",
        "anchored": "sdpo.config.teacher:AnchoredTeacher",
        "external": "sdpo.config.teacher:ExternalTeacher",
    },
)
"""Which models teach: a dataclass, a ``sdpo.config.TeacherConfig``."""

HINT_SOURCES = Seam(
    what="hint source", group="sdpo.hints", built_in={"majority_vote": "sdpo.hindsight.majority_vote:MajorityVote"}
)
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
