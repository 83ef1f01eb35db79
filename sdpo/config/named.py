"""What a config names from outside: made to mean the same in every process, whatever folder that was started in."""

from __future__ import annotations

from sdpo.config.algorithm import AlgorithmConfig, SDPOConfig
from sdpo.config.machines import RolloutConfig
from sdpo.config.run import BatchConfig, EnvConfig
from sdpo.plugins.seam import anywhere


def place_anywhere(
    env: EnvConfig,
    *,
    algorithm: AlgorithmConfig | None = None,
    rollout: RolloutConfig | None = None,
    batch: BatchConfig | None = None,
) -> None:
    """Make the paths of files absolute, in place: a rank, a verifier and a later command may start in another folder."""
    env.name = anywhere(env.name)
    members = env.options.get("members")  # of a mix: environments too
    if isinstance(members, dict):
        for member in members.values():
            if isinstance(member, dict) and isinstance(member.get("name"), str):
                member["name"] = anywhere(member["name"])
    if rollout is not None:
        rollout.weight_sync = anywhere(rollout.weight_sync)
    if batch is not None:
        batch.order.name = anywhere(batch.order.name)
    if algorithm is not None and algorithm.filter.name is not None:
        algorithm.filter.name = anywhere(algorithm.filter.name)
    if algorithm is not None:
        policy_gradient = algorithm.policy_gradient
        policy_gradient.loss, policy_gradient.advantage = anywhere(policy_gradient.loss), anywhere(policy_gradient.advantage)
    if isinstance(algorithm, SDPOConfig):
        algorithm.loss = anywhere(algorithm.loss)
        algorithm.teacher.kind = anywhere(algorithm.teacher.kind)
        algorithm.divergence = anywhere(algorithm.divergence)
        algorithm.hindsight.sources = [anywhere(name) for name in algorithm.hindsight.sources]
