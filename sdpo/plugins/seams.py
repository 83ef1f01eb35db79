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
