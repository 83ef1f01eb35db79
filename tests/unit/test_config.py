"""Every rule between the knobs, and that its sentence names the field, the value and the way out."""

import math
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from sdpo.config import (
    AlgorithmConfig,
    BatchConfig,
    CheckpointConfig,
    Config,
    Divergence,
    EnvConfig,
    EvaluateConfig,
    EvaluationConfig,
    Granularity,
    GRPOConfig,
    HindsightConfig,
    HintChoice,
    LearnerConfig,
    ModelConfig,
    PolicyGradientConfig,
    RolloutConfig,
    SamplingConfig,
    SDPOConfig,
    SupportConfig,
    TeacherConfig,
)


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is what is tested
        build()
    return str(refused.value)


RANGES = [
    ("algorithm.support.num_ids", lambda x: SupportConfig(num_ids=x), 0, 1),
    ("algorithm.teacher.ema_rate", lambda x: TeacherConfig(ema_rate=x), 1.5, 1.0),
    ("algorithm.teacher.ema_rate", lambda x: TeacherConfig(ema_rate=x), -0.1, 0.0),
    ("algorithm.hindsight.max_prompt_tokens", lambda x: HindsightConfig(max_prompt_tokens=x), 0, 1),
    ("algorithm.hindsight.demonstration_reward", lambda x: HindsightConfig(demonstration_reward=x), 1.1, 1.0),
    ("algorithm.policy_gradient.clip_low", lambda x: PolicyGradientConfig(clip_low=x), 1.1, 1.0),
    ("algorithm.policy_gradient.clip_high", lambda x: PolicyGradientConfig(clip_high=x), -0.1, 0.0),
    ("algorithm.policy_gradient.rollout_clip", lambda x: PolicyGradientConfig(rollout_clip=x), 0.5, 1.0),
    ("algorithm.importance_clip", lambda x: SDPOConfig(importance_clip=x), 0.9, 1.0),
    ("algorithm.rollout_clip", lambda x: SDPOConfig(rollout_clip=x), 0.9, 1.0),
    ("algorithm.policy_gradient_share", lambda x: SDPOConfig(policy_gradient_share=x), 1.5, 1.0),
    ("algorithm.jsd_beta", lambda x: SDPOConfig(jsd_beta=x), 0.0, 0.01),
    ("algorithm.jsd_beta", lambda x: SDPOConfig(jsd_beta=x), 1.0, 0.99),
    ("batch.num_tasks", lambda x: BatchConfig(num_tasks=x), 0, 1),
    ("batch.group_size", lambda x: BatchConfig(group_size=x), 0, 1),
    ("batch.tasks_per_update", lambda x: BatchConfig(tasks_per_update=x), 0, 1),
    ("batch.micro_batch_tokens", lambda x: BatchConfig(micro_batch_tokens=x), 0, 1),
    ("sampling.temperature", lambda x: SamplingConfig(temperature=x), 0.0, 0.1),
    ("sampling.max_prompt_tokens", lambda x: SamplingConfig(max_prompt_tokens=x), 0, 1),
    ("sampling.max_response_tokens", lambda x: SamplingConfig(max_response_tokens=x), 0, 1),
    ("evaluation.every", lambda x: EvaluationConfig(every=x), -1, 0),
    ("evaluation.num_tasks", lambda x: EvaluationConfig(num_tasks=x), -1, 0),
    ("evaluation.num_attempts", lambda x: EvaluationConfig(num_attempts=x), 0, 1),
    ("evaluation.temperature", lambda x: EvaluationConfig(temperature=x), -0.1, 0.0),
    ("evaluation.top_p", lambda x: EvaluationConfig(top_p=x), 0.0, 1.0),
    ("checkpoint.every", lambda x: CheckpointConfig(every=x), 0, 1),
    ("checkpoint.keep", lambda x: CheckpointConfig(keep=x), 0, 1),
    ("learner.num_ranks", lambda x: LearnerConfig(num_ranks=x), 0, 1),
    ("learner.zero_stage", lambda x: LearnerConfig(zero_stage=x), 3, 2),
    ("learner.zero_stage", lambda x: LearnerConfig(zero_stage=x), 0, 1),
    ("learner.lr", lambda x: LearnerConfig(lr=x), -1e-6, 0.0),
    ("learner.warmup_updates", lambda x: LearnerConfig(warmup_updates=x), -1, 0),
    ("learner.grad_clip", lambda x: LearnerConfig(grad_clip=x), 0.0, 0.1),
    ("learner.logits_chunk_tokens", lambda x: LearnerConfig(logits_chunk_tokens=x), 0, 1),
    ("rollout.num_engines", lambda x: RolloutConfig(num_engines=x), 0, 1),
    ("rollout.num_verifiers", lambda x: RolloutConfig(num_verifiers=x), 0, 1),
    ("rollout.max_num_seqs", lambda x: RolloutConfig(max_num_seqs=x), 0, 1),
    ("rollout.max_set_aside_share", lambda x: RolloutConfig(max_set_aside_share=x), 1.1, 1.0),
    ("num_steps", lambda x: Config(algorithm=SDPOConfig(), num_steps=x), 0, 1),
    ("k", lambda x: EvaluateConfig(k=x), 0, 1),
    ("num_tasks", lambda x: EvaluateConfig(num_tasks=x), 0, 1),
    ("temperature", lambda x: EvaluateConfig(temperature=x), -0.1, 0.0),
    ("top_p", lambda x: EvaluateConfig(top_p=x), 1.1, 1.0),
]


@pytest.mark.parametrize(("key", "build", "bad", "good"), RANGES, ids=[f"{key}={bad}" for key, _, bad, _ in RANGES])
def test_a_value_out_of_range_is_refused_by_name_and_the_edge_of_the_range_is_not(key, build, bad, good):
    sentence = refusal(lambda: build(bad))
    assert sentence.startswith(f"{key} must ")
    assert f"got {bad}" in sentence
    build(good)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SDPOConfig(importance_clip=math.nan),
        lambda: SDPOConfig(jsd_beta=math.nan),
        lambda: SDPOConfig(policy_gradient_share=math.nan),
        lambda: TeacherConfig(ema_rate=math.nan),
        lambda: EvaluationConfig(top_p=math.nan),
        lambda: SamplingConfig(temperature=math.nan),
        lambda: LearnerConfig(lr=math.nan),
        lambda: LearnerConfig(grad_clip=math.nan),
    ],
    ids=["importance_clip", "jsd_beta", "share", "ema_rate", "top_p", "temperature", "lr", "grad_clip"],
)
def test_nan_is_out_of_every_range(build):
    assert "nan" in refusal(build)


@pytest.mark.parametrize("granularity", [Granularity.token, Granularity.sequence], ids=lambda g: g.value)
@pytest.mark.parametrize("divergence", [Divergence.forward_kl, Divergence.jsd], ids=lambda d: d.value)
def test_sampled_tokens_alone_go_with_the_reverse_kl_only(granularity, divergence):
    sentence = refusal(lambda: SDPOConfig(granularity=granularity, divergence=divergence))
    assert f"algorithm.granularity={granularity.value}" in sentence
    assert f"got {divergence.value}" in sentence
    assert "Set algorithm.granularity=logits or algorithm.divergence=reverse_kl" in sentence
    SDPOConfig(granularity=granularity, divergence=Divergence.reverse_kl)
    SDPOConfig(granularity=Granularity.logits, divergence=divergence)


def test_updates_learn_from_equally_many_tasks():
    for tasks_per_update in (3, 16):
        sentence = refusal(lambda size=tasks_per_update: BatchConfig(num_tasks=8, tasks_per_update=size))
        assert "batch.tasks_per_update must divide batch.num_tasks" in sentence
        assert f"got {tasks_per_update} and 8" in sentence
    BatchConfig(num_tasks=8, tasks_per_update=4)
    BatchConfig(num_tasks=8, tasks_per_update=8)


DEMONSTRATIONS_ONLY = SDPOConfig(hindsight=HindsightConfig(choice=HintChoice.demonstration_only))


@pytest.mark.parametrize(
    ("algorithm", "named"),
    [
        (GRPOConfig(), "algorithm=grpo"),
        (DEMONSTRATIONS_ONLY, "algorithm.hindsight.choice=demonstration_only"),
    ],
    ids=["grpo", "demonstrations only"],
)
def test_a_lone_attempt_is_refused_where_only_siblings_could_teach(algorithm: AlgorithmConfig, named):
    sentence = refusal(lambda: Config(algorithm=algorithm, batch=BatchConfig(group_size=1)))
    assert sentence.startswith("batch.group_size must be at least 2")
    assert named in sentence
    assert "got 1" in sentence
    Config(algorithm=algorithm, batch=BatchConfig(group_size=2))


def test_a_lone_attempt_may_learn_from_its_feedback():
    assert Config(algorithm=SDPOConfig(), batch=BatchConfig(group_size=1)).batch.group_size == 1


def test_the_hindsight_prompt_has_room_for_the_question():
    hindsight = HindsightConfig(max_prompt_tokens=500)
    sentence = refusal(lambda: Config(algorithm=SDPOConfig(hindsight=hindsight), sampling=SamplingConfig(max_prompt_tokens=501)))
    assert "algorithm.hindsight.max_prompt_tokens must be at least sampling.max_prompt_tokens" in sentence
    assert "got 500 and 501" in sentence
    Config(algorithm=GRPOConfig(), sampling=SamplingConfig(max_prompt_tokens=5000))


@pytest.mark.parametrize("name", ["a/b", "/tmp/run", "..", ".hidden"])
def test_the_runs_name_is_a_plain_folder_name(name):
    sentence = refusal(lambda: Config(algorithm=SDPOConfig(), name=name))
    assert sentence.startswith("name must be a plain folder name")
    assert f"got {name!r}" in sentence


def test_an_unnamed_run_is_named_after_what_it_is():
    env = EnvConfig(name="some/folder/file.py:Reverse")
    named = Config(algorithm=SDPOConfig(), env=env, model=ModelConfig(name="tiny", path="tiny"), seed=3)
    assert named.name == "reverse-sdpo-tiny-s3"


@pytest.mark.parametrize(
    ("every", "due"), [(0, [0, 10]), (1, list(range(11))), (4, [0, 4, 8, 10]), (50, [0, 10])], ids=lambda v: str(v)
)
def test_the_first_and_the_last_step_are_always_looked_at(every, due):
    evaluation = EvaluationConfig(every=every)
    assert [step for step in range(11) if evaluation.is_due(step, 10)] == due


def test_without_heldout_tasks_there_is_nothing_to_look_at():
    assert not any(EvaluationConfig(every=1, num_tasks=0).is_due(step, 10) for step in range(11))


@pytest.mark.parametrize(("every", "due"), [(1, list(range(1, 11))), (4, [4, 8, 10]), (50, [10])])
def test_the_last_step_is_always_saved(every, due):
    assert [step for step in range(1, 11) if CheckpointConfig(every=every).is_due(step, 10)] == due


@pytest.mark.parametrize("schema", [Config, EvaluateConfig, SDPOConfig, GRPOConfig], ids=lambda schema: schema.__name__)
def test_hydra_can_make_a_schema_of_it(schema):
    """OmegaConf accepts fewer types than Python."""
    OmegaConf.structured(schema)


def test_an_algorithm_composed_by_omegaconf_is_built_and_checked():
    composed = OmegaConf.merge(OmegaConf.structured(SDPOConfig), {"divergence": "jsd", "support": {"num_ids": 20}})
    algorithm = OmegaConf.to_object(composed)
    assert isinstance(algorithm, SDPOConfig)
    assert (algorithm.divergence, algorithm.support.num_ids) == (Divergence.jsd, 20)
    wrong = OmegaConf.merge(composed, {"granularity": "token"})
    assert "algorithm.granularity=token" in refusal(lambda: OmegaConf.to_object(wrong))
