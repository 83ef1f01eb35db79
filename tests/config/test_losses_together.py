"""Options of several losses that do not go together are refused; each pair was once taken, and did something else."""

from __future__ import annotations

import pytest

from sdpo.config import (
    Auxiliary,
    Deviation,
    Granularity,
    GRPOConfig,
    PolicyGradientConfig,
    SDPOConfig,
)
from sdpo.config.compose import solve_config, train_config, warmup_config
from sdpo.config.named import place_anywhere
from sdpo.errors import UserError
from sdpo.objectives.advantage import advantages_of

EVIDENCE = {"loss": "evidence", "routing": Auxiliary()}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SDPOConfig(loss="gated", advantage_clip=5.0), "algorithm.loss=gated reads the sampled token's log-ratio alone"),
        (lambda: SDPOConfig(loss="gated", pointwise_clip=0.1), "algorithm.loss=gated reads"),
        (lambda: SDPOConfig(loss="gated", granularity=Granularity.token), "algorithm.loss=gated reads"),
        (lambda: SDPOConfig(entropy_weight=1.0, **EVIDENCE), "algorithm.loss=evidence adds none"),
        (lambda: SDPOConfig(loss="a.py:X", future_credit=0.5), "works with algorithm.loss=divergence only"),
        (lambda: PolicyGradientConfig(loss="cispo", clip_ratio_c=3.0), "must be null; got 3.0"),
        (
            lambda: GRPOConfig(policy_gradient=PolicyGradientConfig(advantage="batch", drop_uniform_groups=True)),
            "advantage=batch compares attempts with the whole step",
        ),
        (
            lambda: GRPOConfig(policy_gradient=PolicyGradientConfig(advantage="batch"), replacement_rounds=1),
            "advantage=batch compares attempts with the whole step",
        ),
    ],
)
def test_what_a_loss_would_ignore_or_lose_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_a_loss_of_ones_own_may_compare_the_tokens_of_a_row_and_so_gets_them_all():
    """It was given the rows of a chunk alone, cut where the chunk ended."""
    assert SDPOConfig(loss="a.py:X").distils_whole_rows
    assert not SDPOConfig().distils_whole_rows


@pytest.mark.parametrize(
    ("compose", "words", "said"),
    [
        (
            train_config,
            [
                "guards.response=raise_policy_gradient", "learner.num_ranks=2", "learner.sequence_parallel=2",
                "algorithm.policy_gradient.rollout_correction=sequence_mask",
            ],
            "no rank sees a whole response",
        ),
        (
            train_config,
            ["guards.response=raise_policy_gradient", "algorithm.replacement_rounds=2"],
            "changes which groups teach anything",
        ),
        (warmup_config, ["to=there", "algorithm.loss=gated"], "algorithm.loss must be divergence"),
        (warmup_config, ["to=there", "algorithm.normalisation=authors"], "algorithm.normalisation distilled"),
        (
            solve_config,
            ["task=code/x", "algorithm=rlsd", "algorithm.hindsight.choice=feedback_only"],
            "algorithm.loss must teach by itself in a search",
        ),
        (solve_config, ["task=code/x", "algorithm.replacement_rounds=2"], "there is one task, and no other to replace it"),
    ],
)  # fmt: skip
def test_what_a_command_cannot_do_with_a_loss_is_refused(compose, words, said):
    with pytest.raises(UserError, match=said):
        compose(words)


def test_a_lone_attempt_may_be_compared_with_the_step():
    """REINFORCE++ samples one attempt a task; it was refused, its advantage being "always 0"."""
    assert train_config(["algorithm=reinforce_plus_plus", "batch.group_size=1"]).batch.group_size == 1
    with pytest.raises(UserError, match="group_size must be at least 2"):
        train_config(["algorithm=rloo", "batch.group_size=1"])


def test_losses_from_a_file_mean_the_same_from_every_folder(tmp_path, monkeypatch):
    """The config kept the path as it was typed, so a continued run in another folder read another file, or none."""
    monkeypatch.chdir(tmp_path)
    config = train_config(["algorithm.loss=x.py:L", "algorithm.policy_gradient.loss=y.py:f"])
    algorithm = config.algorithm
    place_anywhere(config.env, algorithm=algorithm)
    assert isinstance(algorithm, SDPOConfig)
    assert algorithm.loss == f"{tmp_path}/x.py:L"
    assert algorithm.policy_gradient.loss == f"{tmp_path}/y.py:f"


def test_the_step_s_deviation_is_the_one_that_is_asked_for():
    rewards = [[0.0, 1.0], [0.0, 0.0]]
    found = {
        deviation: advantages_of(rewards, PolicyGradientConfig(advantage="group_then_batch", deviation=deviation))[0][1]
        for deviation in Deviation
    }
    assert found[Deviation.population] == pytest.approx(2**0.5)
    assert found[Deviation.sample] == pytest.approx(1.5**0.5)


def test_advantages_of_the_wrong_length_name_who_gave_them(tmp_path):
    """Too few ended in "generator raised StopIteration", and what was too much was cut off in silence."""
    file = tmp_path / "mine.py"
    file.write_text("def short(rewards, config):\n    return [group[1:] for group in rewards]\n")
    with pytest.raises(
        ValueError, match=r"must give each attempt a number; .*mine.py:short.* gave groups of \[2\] attempts \[1\]"
    ):
        advantages_of([[0.0, 1.0]], PolicyGradientConfig(advantage=f"{file}:short"))
