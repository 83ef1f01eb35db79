"""Every rule between the knobs, and that its sentence names the field, the value and the way out."""

import math
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

from sdpo.config import (
    AlgorithmConfig,
    AnchoredTeacher,
    Auxiliary,
    BatchConfig,
    Blend,
    ByGroup,
    ByHint,
    BySuccess,
    CheckpointConfig,
    Config,
    CosineSchedule,
    Dtype,
    EmaTeacher,
    EnvConfig,
    EvaluateConfig,
    EvaluationConfig,
    ExportConfig,
    FrozenTeacher,
    FullSupport,
    Granularity,
    GRPOConfig,
    GuardsConfig,
    HindsightConfig,
    HintChoice,
    LearnerConfig,
    LiftSchedule,
    LinearSchedule,
    LiveTeacher,
    LoraConfig,
    LossMean,
    ModelConfig,
    Normalisation,
    Offload,
    OnGainTeacher,
    OnLowLift,
    PeriodicTeacher,
    PolicyGradientConfig,
    QuestionWeight,
    RatioLevel,
    ReplayConfig,
    Response,
    RolloutConfig,
    RolloutCorrection,
    SamplingConfig,
    SDPOConfig,
    TeacherConfig,
    TopSupport,
    TrackingConfig,
    TrustRegionTeacher,
)


def refusal(build: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the sentence is what is tested
        build()
    return str(refused.value)


RANGES = [
    ("algorithm.support.num_ids", lambda x: TopSupport(num_ids=x), 0, 1),
    ("algorithm.teacher.ema_rate", lambda x: EmaTeacher(ema_rate=x), 1.5, 1.0),
    ("algorithm.teacher.ema_rate", lambda x: EmaTeacher(ema_rate=x), -0.1, 0.0),
    ("algorithm.hindsight.max_prompt_tokens", lambda x: HindsightConfig(max_prompt_tokens=x), 0, 1),
    ("algorithm.hindsight.success_buffer", lambda x: HindsightConfig(success_buffer=x), -1, 0),
    ("algorithm.entropy_weight", lambda x: SDPOConfig(entropy_weight=x), -0.1, 0.0),
    ("algorithm.future_credit", lambda x: SDPOConfig(future_credit=x), 1.1, 1.0),
    ("algorithm.pointwise_clip", lambda x: SDPOConfig(pointwise_clip=x), 0.0, 1e-9),
    ("algorithm.advantage_clip", lambda x: SDPOConfig(advantage_clip=x), 0.0, 1e-9),
    ("algorithm.hindsight.demonstration_reward", lambda x: HindsightConfig(demonstration_reward=x), 1.1, 1.0),
    ("algorithm.policy_gradient.clip_low", lambda x: PolicyGradientConfig(clip_low=x), 1.1, 1.0),
    ("algorithm.policy_gradient.clip_high", lambda x: PolicyGradientConfig(clip_high=x), -0.1, 0.0),
    ("algorithm.policy_gradient.rollout_clip", lambda x: PolicyGradientConfig(rollout_clip=x), 0.5, 1.0),
    ("algorithm.policy_gradient.overlong_tokens", lambda x: PolicyGradientConfig(overlong_tokens=x), -1, 0),
    ("algorithm.teacher.live_weight", lambda x: TrustRegionTeacher(live_weight=x), 1.5, 1.0),
    ("algorithm.teacher.live_weight", lambda x: TrustRegionTeacher(live_weight=x), -0.1, 0.0),
    ("algorithm.teacher.beta", lambda x: AnchoredTeacher(beta=x), 0.9, 1.0),
    ("algorithm.routing.distillation_weight", lambda x: Auxiliary(distillation_weight=x), 0.0, 0.01),
    ("algorithm.gate_sharpness", lambda x: SDPOConfig(gate_sharpness=x), -0.1, 0.0),
    ("algorithm.evidence_share", lambda x: SDPOConfig(evidence_share=x), 1.1, 1.0),
    ("algorithm.evidence_clip", lambda x: SDPOConfig(evidence_clip=x), -0.1, 0.0),
    ("algorithm.entropy_bonus", lambda x: SDPOConfig(entropy_bonus=x), -0.1, 0.0),
    ("algorithm.entropy_bonus", lambda x: GRPOConfig(entropy_bonus=x), -0.1, 0.0),
    ("algorithm.reference_kl", lambda x: SDPOConfig(reference_kl=x), -0.1, 0.0),
    ("algorithm.reference_kl", lambda x: GRPOConfig(reference_kl=x), -0.1, 0.0),
    ("algorithm.replacement_rounds", lambda x: GRPOConfig(replacement_rounds=x), -1, 0),
    ("algorithm.replacement_rounds", lambda x: SDPOConfig(replacement_rounds=x), -1, 0),
    ("algorithm.importance_clip", lambda x: SDPOConfig(importance_clip=x), 0.9, 1.0),
    ("algorithm.rollout_clip", lambda x: SDPOConfig(rollout_clip=x), 0.9, 1.0),
    ("algorithm.routing.policy_gradient_share", lambda x: SDPOConfig(routing=Blend(policy_gradient_share=x)), 1.5, 1.0),
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
    ("checkpoint.keep_best", lambda x: CheckpointConfig(keep_best=x), -1, 0),
    ("learner.num_ranks", lambda x: LearnerConfig(num_ranks=x), 0, 1),
    ("learner.zero_stage", lambda x: LearnerConfig(zero_stage=x), 4, 3),
    ("learner.zero_stage", lambda x: LearnerConfig(zero_stage=x, dtype=Dtype.float32), -1, 0),
    ("learner.sequence_parallel", lambda x: LearnerConfig(sequence_parallel=x), 0, 1),
    ("learner.max_skipped_updates", lambda x: LearnerConfig(max_skipped_updates=x), 0, 1),
    ("learner.lora.rank", lambda x: LoraConfig(rank=x), -1, 0),
    ("learner.lora.alpha", lambda x: LoraConfig(alpha=x), 0, 1),
    ("learner.weight_decay", lambda x: LearnerConfig(weight_decay=x), -0.1, 0.0),
    ("learner.beta1", lambda x: LearnerConfig(beta1=x), 1.0, 0.0),
    ("learner.beta2", lambda x: LearnerConfig(beta2=x), 1.0, 0.999),
    ("learner.timeout_s", lambda x: LearnerConfig(timeout_s=x), 0.0, 0.1),
    ("learner.lr", lambda x: LearnerConfig(lr=x), -1e-6, 0.0),
    ("learner.warmup_updates", lambda x: LearnerConfig(warmup_updates=x), -1, 0),
    ("learner.num_epochs", lambda x: LearnerConfig(num_epochs=x), 0, 1),
    ("learner.schedule.floor", lambda x: LinearSchedule(floor=x), 1.1, 1.0),
    ("learner.schedule.floor", lambda x: CosineSchedule(floor=x), -0.1, 0.0),
    ("learner.schedule.num_steps", lambda x: CosineSchedule(num_steps=x), 0, 1),
    ("learner.grad_clip", lambda x: LearnerConfig(grad_clip=x), 0.0, 0.1),
    ("learner.logits_chunk_mib", lambda x: LearnerConfig(logits_chunk_mib=x), 0.0, 0.001),
    ("rollout.gpu_memory_utilization", lambda x: RolloutConfig(gpu_memory_utilization=x), 0.0, 1.0),
    ("rollout.tensor_parallel_size", lambda x: RolloutConfig(tensor_parallel_size=x), 0, 1),
    ("rollout.kv_cache_gib", lambda x: RolloutConfig(kv_cache_gib=x), 0, 1),
    ("rollout.verify_timeout_s", lambda x: RolloutConfig(verify_timeout_s=x), 0.0, 0.1),
    ("rollout.start_timeout_s", lambda x: RolloutConfig(start_timeout_s=x), 0.0, 0.1),
    ("rollout.stall_timeout_s", lambda x: RolloutConfig(stall_timeout_s=x), 0.0, 0.1),
    ("rollout.num_engines", lambda x: RolloutConfig(num_engines=x), 0, 1),
    ("rollout.num_verifiers", lambda x: RolloutConfig(num_verifiers=x), 0, 1),
    ("rollout.max_num_seqs", lambda x: RolloutConfig(max_num_seqs=x), 0, 1),
    ("rollout.max_set_aside_share", lambda x: RolloutConfig(max_set_aside_share=x), 1.1, 1.0),
    ("algorithm.teacher.min_gain", lambda x: OnGainTeacher(min_gain=x), -0.1, 0.0),
    ("algorithm.teacher.max_length_growth", lambda x: OnGainTeacher(max_length_growth=x), -0.1, 0.0),
    ("algorithm.teacher.gain_window", lambda x: OnGainTeacher(gain_window=x), 0, 1),
    ("algorithm.teacher.refresh_every", lambda x: PeriodicTeacher(refresh_every=x), 0, 1),
    ("guards.repeat_after", lambda x: GuardsConfig(repeat_after=x), 0, 1),
    ("guards.early", lambda x: GuardsConfig(early=x), 0, 1),
    ("guards.recent", lambda x: GuardsConfig(recent=x), 0, 1),
    ("guards.patience", lambda x: GuardsConfig(patience=x), 0, 1),
    ("guards.window", lambda x: GuardsConfig(window=x), 1, 2),
    ("guards.num_se", lambda x: GuardsConfig(num_se=x), -0.1, 0.0),
    ("guards.num_heldout_se", lambda x: GuardsConfig(num_heldout_se=x), -0.1, 0.0),
    ("guards.num_success_se", lambda x: GuardsConfig(num_success_se=x), math.nan, 0.0),
    ("guards.min_length_factor", lambda x: GuardsConfig(min_length_factor=x), 1.1, 1.0),
    ("guards.max_length_factor", lambda x: GuardsConfig(max_length_factor=x), 0.9, 1.0),
    ("guards.min_variety_factor", lambda x: GuardsConfig(min_variety_factor=x), 1.1, 1.0),
    ("guards.min_entropy_factor", lambda x: GuardsConfig(min_entropy_factor=x), 1.1, 1.0),
    ("guards.min_entropy", lambda x: GuardsConfig(min_entropy=x), -0.1, 0.0),
    ("guards.max_divergence_factor", lambda x: GuardsConfig(max_divergence_factor=x), 0.9, 1.0),
    ("guards.min_success_factor", lambda x: GuardsConfig(min_success_factor=x), 1.1, 1.0),
    ("guards.min_heldout_factor", lambda x: GuardsConfig(min_heldout_factor=x), -0.1, 0.0),
    ("guards.min_lift", lambda x: GuardsConfig(min_lift=x), -1.1, -1.0),
    ("guards.max_mismatch", lambda x: GuardsConfig(max_mismatch=x), -0.1, 0.0),
    ("guards.policy_gradient_step", lambda x: GuardsConfig(policy_gradient_step=x), 1.1, 1.0),
    ("guards.max_policy_gradient_share", lambda x: GuardsConfig(max_policy_gradient_share=x), 1.1, 1.0),
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
        lambda: SDPOConfig(routing=Blend(policy_gradient_share=math.nan)),
        lambda: EmaTeacher(ema_rate=math.nan),
        lambda: EvaluationConfig(top_p=math.nan),
        lambda: SamplingConfig(temperature=math.nan),
        lambda: LearnerConfig(lr=math.nan),
        lambda: LearnerConfig(grad_clip=math.nan),
        lambda: LearnerConfig(logits_chunk_mib=math.nan),
        lambda: LearnerConfig(beta1=math.nan),
        lambda: TrustRegionTeacher(live_weight=math.nan),
        lambda: GRPOConfig(entropy_bonus=math.nan),
        lambda: SDPOConfig(reference_kl=math.nan),
        lambda: SDPOConfig(entropy_weight=math.nan),
        lambda: SDPOConfig(pointwise_clip=math.nan),
        lambda: SDPOConfig(advantage_clip=math.nan),
        lambda: LinearSchedule(floor=math.nan),
        lambda: SDPOConfig(future_credit=math.nan),
    ],
    ids=[
        "importance_clip",
        "jsd_beta",
        "share",
        "ema_rate",
        "top_p",
        "temperature",
        "lr",
        "grad_clip",
        "chunk",
        "beta1",
        "live_weight",
        "entropy_bonus",
        "reference_kl",
        "entropy_weight",
        "pointwise_clip",
        "advantage_clip",
        "floor",
        "future_credit",
    ],
)
def test_nan_is_out_of_every_range(build):
    assert "nan" in refusal(build)


@pytest.mark.parametrize("granularity", [Granularity.token, Granularity.sequence], ids=lambda g: g.value)
@pytest.mark.parametrize("divergence", ["forward_kl", "jsd"])
def test_sampled_tokens_alone_go_with_the_reverse_kl_only(granularity, divergence):
    sentence = refusal(lambda: SDPOConfig(granularity=granularity, divergence=divergence))
    assert f"algorithm.granularity={granularity.value}" in sentence
    assert f"got {divergence}" in sentence
    assert "Set algorithm.granularity=logits or algorithm.divergence=reverse_kl" in sentence
    SDPOConfig(granularity=granularity, divergence="reverse_kl")
    SDPOConfig(granularity=Granularity.logits, divergence=divergence)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"divergence": "forward_kl"}, "needs algorithm.divergence=reverse_kl"),
        ({"divergence": "jsd"}, "needs algorithm.divergence=reverse_kl"),
        ({"granularity": Granularity.sequence}, "needs algorithm.granularity=logits or token"),
        ({"pointwise_clip": 0.1}, "Set one of them."),
    ],
    ids=str,
)
def test_only_the_reverse_kl_of_tokens_has_advantages_to_clamp(changes, said):
    assert said in refusal(lambda: SDPOConfig(advantage_clip=5.0, **changes))
    SDPOConfig(advantage_clip=5.0, support=FullSupport())
    SDPOConfig(advantage_clip=5.0, granularity=Granularity.token)


def test_a_clamp_of_each_bucket_needs_buckets():
    SDPOConfig(pointwise_clip=0.1, support=FullSupport())
    for granularity in (Granularity.token, Granularity.sequence):
        sentence = refusal(lambda granularity=granularity: SDPOConfig(pointwise_clip=0.1, granularity=granularity))
        assert sentence.startswith("algorithm.pointwise_clip needs algorithm.granularity=logits")
        assert f"got 0.1 with granularity={granularity.value}" in sentence


@pytest.mark.parametrize("bound", [1.0, 0.5, math.nan, math.inf])
def test_a_dual_clip_leaves_what_is_learned_on_policy(bound):
    sentence = refusal(lambda: PolicyGradientConfig(clip_ratio_c=bound))
    assert sentence.startswith("algorithm.policy_gradient.clip_ratio_c must be above 1")
    assert f"got {bound}" in sentence
    PolicyGradientConfig(clip_ratio_c=3.0)


@pytest.mark.parametrize("mean", [LossMean.sequence, LossMean.constant], ids=lambda mean: mean.value)
def test_one_denominator_for_both_losses_counts_tokens(mean):
    sentence = refusal(lambda: SDPOConfig(normalisation=Normalisation.joint, policy_gradient=PolicyGradientConfig(mean=mean)))
    assert "algorithm.normalisation=joint needs algorithm.policy_gradient.mean=token" in sentence
    assert f"got mean={mean.value}" in sentence


@pytest.mark.parametrize("weights", [{"entropy_weight": 0.5}, {"future_credit": 0.5}], ids=str)
def test_weights_of_tokens_need_tokens_that_are_compared(weights):
    sentence = refusal(lambda: SDPOConfig(granularity=Granularity.sequence, **weights))
    assert "need algorithm.granularity=logits or token" in sentence
    assert "=0.5" in sentence
    SDPOConfig(granularity=Granularity.token, **weights)


@pytest.mark.parametrize("choice", list(HintChoice), ids=lambda choice: choice.value)
def test_successes_are_remembered_only_where_they_would_be_shown(choice):
    if choice in (HintChoice.demonstration_first, HintChoice.both, HintChoice.demonstration_only):
        HindsightConfig(choice=choice, success_buffer=3)
    else:
        sentence = refusal(lambda: HindsightConfig(choice=choice, success_buffer=3))
        assert sentence.startswith("algorithm.hindsight.success_buffer stands in for a solved sibling")
        assert f"got 3 with choice={choice.value}" in sentence


def test_remembered_successes_need_the_rollouts_that_they_are_read_from():
    algorithm = SDPOConfig(hindsight=HindsightConfig(success_buffer=3))
    sentence = refusal(lambda: Config(algorithm=algorithm, tracking=TrackingConfig(rollouts=False)))
    assert sentence.startswith("algorithm.hindsight.success_buffer above 0 needs tracking.rollouts=true")
    assert "got success_buffer=3 and rollouts=false" in sentence
    Config(algorithm=algorithm)
    Config(algorithm=SDPOConfig(), tracking=TrackingConfig(rollouts=False))


def test_what_a_remembered_success_would_teach_is_not_known_ahead():
    algorithm = SDPOConfig(hindsight=HindsightConfig(success_buffer=3), replacement_rounds=1)
    sentence = refusal(lambda: Config(algorithm=algorithm, rollout=RolloutConfig(staleness=2)))
    assert sentence.startswith("algorithm.replacement_rounds above 0 with algorithm.hindsight.success_buffer above 0 needs")
    assert "got 2" in sentence
    Config(algorithm=algorithm)
    Config(algorithm=SDPOConfig(replacement_rounds=1), rollout=RolloutConfig(staleness=2))


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
        (SDPOConfig(question_weight=QuestionWeight.uncertainty), "algorithm.question_weight=uncertainty"),
        (SDPOConfig(routing=Blend(policy_gradient_share=0.1)), "with a policy gradient"),
        (SDPOConfig(routing=BySuccess()), "with a policy gradient"),
        (SDPOConfig(routing=ByHint()), "with a policy gradient"),
    ],
    ids=["grpo", "demonstrations only", "uncertainty", "blend", "by success", "by hint"],
)
def test_a_lone_attempt_is_refused_where_only_siblings_could_teach(algorithm: AlgorithmConfig, named):
    sentence = refusal(lambda: Config(algorithm=algorithm, batch=BatchConfig(group_size=1)))
    assert sentence.startswith("batch.group_size must be at least 2")
    assert named in sentence
    assert "got 1" in sentence
    Config(algorithm=algorithm, batch=BatchConfig(group_size=2))


def test_a_lone_attempt_may_learn_from_its_feedback():
    assert Config(algorithm=SDPOConfig(), batch=BatchConfig(group_size=1)).batch.group_size == 1


def test_a_lone_attempt_may_learn_from_a_success_of_its_task_that_is_remembered():
    recalling = HindsightConfig(choice=HintChoice.demonstration_only, success_buffer=1)
    Config(algorithm=SDPOConfig(hindsight=recalling), batch=BatchConfig(group_size=1))


def test_the_hindsight_prompt_has_room_for_the_question():
    hindsight = HindsightConfig(max_prompt_tokens=500)
    sentence = refusal(lambda: Config(algorithm=SDPOConfig(hindsight=hindsight), sampling=SamplingConfig(max_prompt_tokens=501)))
    assert "algorithm.hindsight.max_prompt_tokens must be at least sampling.max_prompt_tokens" in sentence
    assert "got 500 and 501" in sentence
    Config(algorithm=GRPOConfig(), sampling=SamplingConfig(max_prompt_tokens=5000))


# Rules between two knobs: each sentence names both, what they were, and a way out that is one.


SELVES = (
    LiveTeacher(),
    FrozenTeacher(),
    EmaTeacher(),
    OnGainTeacher(),
    PeriodicTeacher(),
    TrustRegionTeacher(),
    AnchoredTeacher(),
)


def kind_of(teacher: TeacherConfig) -> str:
    return teacher.kind


@pytest.mark.parametrize("name", ["teacher", "routing"])
def test_a_kind_is_its_class(name: str) -> None:
    """A kind's fields exist where that kind is chosen; its name on another one's fields is no choice."""
    teacher, routing = LiveTeacher(), Blend()
    (teacher if name == "teacher" else routing).kind = "ema" if name == "teacher" else "by_hint"
    sentence = refusal(lambda: SDPOConfig(teacher=teacher, routing=routing))
    assert sentence.startswith(f"algorithm.{name}.kind decides which fields there are")
    assert f"override /algorithm/{name}: " in sentence
    SDPOConfig(teacher=EmaTeacher(), routing=ByHint())


@pytest.mark.parametrize("teacher", SELVES, ids=kind_of)
def test_hints_can_be_switched_off(teacher):
    """It was refused, as there is nothing to learn then; so nobody could show that it is the hints that teach."""
    SDPOConfig(hindsight=HindsightConfig(choice=HintChoice.none), teacher=teacher)


@pytest.mark.parametrize(("divides", "does_not"), [((4, 2), (4, 3)), ((6, 3), (2, 4))], ids=["3 of 4", "4 of 2"])
def test_teams_of_ranks_are_of_equal_size(divides, does_not):
    sentence = refusal(lambda: LearnerConfig(num_ranks=does_not[0], sequence_parallel=does_not[1]))
    assert "learner.sequence_parallel must divide learner.num_ranks" in sentence
    assert f"got {does_not[1]} and {does_not[0]}" in sentence
    learner = LearnerConfig(num_ranks=divides[0], sequence_parallel=divides[1])
    assert learner.num_data_ranks == divides[0] // divides[1]


TEAM = LearnerConfig(num_ranks=2, sequence_parallel=2)
GSPO = PolicyGradientConfig(ratio=RatioLevel.sequence)


@pytest.mark.parametrize(
    "algorithm",
    [
        GRPOConfig(policy_gradient=GSPO),
        SDPOConfig(granularity=Granularity.sequence),
        SDPOConfig(future_credit=0.5),
        SDPOConfig(policy_gradient=GSPO, routing=Blend(policy_gradient_share=0.5)),
        SDPOConfig(policy_gradient=GSPO, routing=ByHint()),
    ],
    ids=["gspo", "sequence granularity", "future credit", "blended gspo", "routed gspo"],
)
def test_a_loss_over_whole_responses_needs_a_rank_that_has_them(algorithm):
    sentence = refusal(lambda: Config(algorithm=algorithm, learner=TEAM))
    assert sentence.startswith("learner.sequence_parallel must be 1 ")
    assert "algorithm.policy_gradient.ratio=sequence" in sentence
    assert "algorithm.granularity=sequence" in sentence
    assert sentence.endswith("got 2.")
    Config(algorithm=algorithm, learner=LearnerConfig(num_ranks=2))


@pytest.mark.parametrize(
    "algorithm",
    [
        SDPOConfig(),
        GRPOConfig(policy_gradient=PolicyGradientConfig(mean=LossMean.sequence)),
        SDPOConfig(granularity=Granularity.token),
        SDPOConfig(policy_gradient=GSPO),
    ],
    ids=["sdpo", "mean over sequences", "token granularity", "a ratio that nothing asks for"],
)
def test_other_losses_can_be_shared_out_token_by_token(algorithm):
    assert Config(algorithm=algorithm, learner=TEAM).learner.num_data_ranks == 1


def test_stage_0_has_no_master_weights():
    sentence = refusal(lambda: LearnerConfig(zero_stage=0))
    assert sentence.startswith("learner.zero_stage=0 needs learner.dtype=float32")
    assert "got dtype=bfloat16" in sentence
    assert "Set learner.zero_stage=1" in sentence
    LearnerConfig(zero_stage=0, dtype=Dtype.float32)
    LearnerConfig(zero_stage=1)


def test_what_is_offloaded_has_been_split_off_first():
    sentence = refusal(lambda: LearnerConfig(zero_stage=0, offload=Offload.optimizer))
    assert "learner.offload=optimizer needs learner.zero_stage of 1, 2 or 3" in sentence
    assert sentence.endswith("got 0.")
    for stage in (0, 1, 2):
        sentence = refusal(lambda stage=stage: LearnerConfig(zero_stage=stage, offload=Offload.all))
        assert "learner.offload=all needs learner.zero_stage=3" in sentence
        assert f"got {stage}" in sentence
        assert "Set learner.zero_stage=3 or learner.offload=optimizer" in sentence
    for stage in (1, 2, 3):
        LearnerConfig(zero_stage=stage, offload=Offload.optimizer)
    LearnerConfig(zero_stage=3, offload=Offload.all)


def test_adapters_go_somewhere():
    sentence = refusal(lambda: LoraConfig(rank=8, target_modules=[]))
    assert sentence.startswith("learner.lora.target_modules must name a layer")
    assert "got []" in sentence
    LoraConfig(rank=8, target_modules=["q_proj"])


def test_one_renormalised_id_teaches_nothing():
    sentence = refusal(lambda: TopSupport(num_ids=1, tail=False))
    assert sentence.startswith("algorithm.support.num_ids must be at least 2 without a tail")
    assert "got 1. Raise it, or set algorithm.support.tail=true" in sentence
    TopSupport(num_ids=1, tail=True)
    TopSupport(num_ids=2, tail=False)


def test_the_last_tokens_before_the_limit_are_not_more_than_there_are():
    shaping = PolicyGradientConfig(overlong_tokens=65)
    refusal(lambda: Config(algorithm=GRPOConfig(policy_gradient=shaping), sampling=SamplingConfig(max_response_tokens=64)))


def test_the_best_checkpoints_need_somebody_to_look():
    refusal(
        lambda: Config(algorithm=SDPOConfig(), checkpoint=CheckpointConfig(keep_best=2), evaluation=EvaluationConfig(num_tasks=0))
    )
    Config(algorithm=SDPOConfig(), evaluation=EvaluationConfig(num_tasks=0))  # the default keeps the best there is
    blind = EvaluationConfig(num_tasks=0, every=1)
    refusal(lambda: Config(algorithm=SDPOConfig(), guards=GuardsConfig(response=Response.stop_at_best), evaluation=blind))


def test_lift_compares_two_halves_of_a_tasks_attempts():
    lone = EvaluationConfig(num_attempts=1)
    sentence = refusal(lambda: Config(algorithm=SDPOConfig(), evaluation=lone))
    assert sentence.startswith("evaluation.lift needs evaluation.num_attempts of at least 2")
    assert "evaluation.lift=never" in sentence
    Config(algorithm=SDPOConfig(), evaluation=EvaluationConfig(num_attempts=1, lift=LiftSchedule.never))
    Config(algorithm=SDPOConfig(), evaluation=EvaluationConfig(num_attempts=1, num_tasks=0))
    Config(algorithm=GRPOConfig(), evaluation=lone)


def test_the_lift_of_siblings_alone_needs_two_in_a_half():
    sentence = refusal(lambda: Config(algorithm=DEMONSTRATIONS_ONLY, evaluation=EvaluationConfig(num_attempts=2)))
    assert sentence.startswith("evaluation.lift needs evaluation.num_attempts of at least 3")
    Config(algorithm=DEMONSTRATIONS_ONLY, evaluation=EvaluationConfig(num_attempts=3))


def test_no_lift_is_measured_where_the_teacher_is_shown_the_answer():
    """It was asked for without the answer, found no hint, and on_low_lift=refuse let everything pass."""
    referring = HindsightConfig(choice=HintChoice.reference)
    assert Config(algorithm=SDPOConfig(hindsight=referring)).hindsight_answered is None
    refusal(lambda: Config(algorithm=SDPOConfig(hindsight=referring, on_low_lift=OnLowLift.refuse)))


def test_groups_that_are_all_alike_are_not_distilled_by_their_uncertainty():
    sentence = refusal(lambda: SDPOConfig(routing=ByGroup(), question_weight=QuestionWeight.uncertainty))
    assert "together nothing is distilled" in sentence


def test_a_low_lift_can_only_be_refused_where_there_is_one():
    strict = SDPOConfig(on_low_lift=OnLowLift.refuse)
    for blind in (EvaluationConfig(lift=LiftSchedule.never), EvaluationConfig(num_tasks=0)):
        sentence = refusal(lambda blind=blind: Config(algorithm=strict, evaluation=blind))
        assert sentence.startswith("algorithm.on_low_lift=refuse needs a lift")
        assert f"evaluation.lift={blind.lift.value}, evaluation.num_tasks={blind.num_tasks}" in sentence
    Config(algorithm=strict)


def test_the_engine_has_room_for_hindsight_prompts_where_it_is_asked_them():
    sampling = SamplingConfig(max_prompt_tokens=100, max_response_tokens=10)
    never = EvaluationConfig(lift=LiftSchedule.never)
    hinted = SDPOConfig(hindsight=HindsightConfig(max_prompt_tokens=300))
    assert Config(algorithm=hinted, sampling=sampling).max_model_tokens == 310
    assert Config(algorithm=hinted, sampling=sampling, evaluation=never).max_model_tokens == 110
    assert Config(algorithm=GRPOConfig(), sampling=sampling).max_model_tokens == 110


def test_an_evaluation_measures_lift_where_hints_can_be_made_and_compared():
    assert refusal(lambda: EvaluateConfig(lift=True, k=1)).startswith("k must be at least 2")
    assert "hindsight.choice=none" in refusal(
        lambda: EvaluateConfig(lift=True, hindsight=HindsightConfig(choice=HintChoice.none))
    )
    tight = HindsightConfig(max_prompt_tokens=500)
    assert "hindsight.max_prompt_tokens" in refusal(lambda: EvaluateConfig(lift=True, hindsight=tight))
    assert EvaluateConfig(k=1, hindsight=tight).hindsight_tokens == 0
    assert EvaluateConfig(lift=True).hindsight_tokens == HindsightConfig().max_prompt_tokens


# What an algorithm asks of the learner.


@pytest.mark.parametrize(
    ("algorithm", "has_policy_gradient"),
    [
        (SDPOConfig(), False),
        (SDPOConfig(routing=Blend(policy_gradient_share=0.1)), True),
        (SDPOConfig(routing=Blend(policy_gradient_share=1.0)), True),
        (SDPOConfig(routing=BySuccess()), True),
        (SDPOConfig(routing=ByHint()), True),
    ],
)
def test_some_attempts_are_learned_from_through_their_advantage(algorithm, has_policy_gradient):
    assert algorithm.has_policy_gradient is has_policy_gradient


@pytest.mark.parametrize("algorithm", [SDPOConfig, GRPOConfig])
def test_an_advantage_of_zero_is_no_lesson_unless_another_term_is(algorithm):
    assert not algorithm().has_terms_without_advantage
    assert algorithm(entropy_bonus=0.01).has_terms_without_advantage
    assert algorithm(reference_kl=0.01).has_terms_without_advantage


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


@pytest.mark.parametrize(
    "schema", [Config, EvaluateConfig, ReplayConfig, ExportConfig, SDPOConfig, GRPOConfig], ids=lambda schema: schema.__name__
)
def test_hydra_can_make_a_schema_of_it(schema):
    """OmegaConf accepts fewer types than Python."""
    OmegaConf.structured(schema)


def test_an_algorithm_composed_by_omegaconf_is_built_and_checked():
    composed = OmegaConf.merge(OmegaConf.structured(SDPOConfig()), {"divergence": "jsd", "support": {"num_ids": 20}})
    algorithm = OmegaConf.to_object(composed)
    assert isinstance(algorithm, SDPOConfig)
    assert (algorithm.divergence, algorithm.support.num_ids) == ("jsd", 20)
    wrong = OmegaConf.merge(composed, {"granularity": "token"})
    assert "algorithm.granularity=token" in refusal(lambda: OmegaConf.to_object(wrong))


@pytest.mark.parametrize("response", [Response.refresh_teacher, Response.freeze_teacher], ids=lambda response: response.value)
@pytest.mark.parametrize("teacher", SELVES, ids=kind_of)
def test_only_a_teacher_with_weights_of_its_own_is_refreshed_or_frozen(response, teacher):
    def build(algorithm):
        return Config(algorithm=algorithm, guards=GuardsConfig(response=response))

    if teacher.keeps_average:
        build(SDPOConfig(teacher=teacher))
    else:
        sentence = refusal(lambda: build(SDPOConfig(teacher=teacher)))
        assert f"guards.response={response.value} needs algorithm.teacher.kind=ema, on_gain or periodic" in sentence
        assert f"got {teacher.kind}" in sentence
    assert "got no teacher" in refusal(lambda: build(GRPOConfig()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"algorithm": SDPOConfig(routing=BySuccess())}, "needs algorithm.routing.kind=blend"),
        ({"algorithm": SDPOConfig(routing=ByHint())}, "got algorithm.routing.kind=by_hint"),
        ({"algorithm": GRPOConfig()}, "got a pure policy gradient"),
        ({"batch": BatchConfig(group_size=1)}, "batch.group_size must be at least 2"),
        ({"algorithm": SDPOConfig(routing=Blend(policy_gradient_share=0.75))}, "got 0.75 and 0.75"),
        (
            {
                "algorithm": SDPOConfig(policy_gradient=PolicyGradientConfig(ratio=RatioLevel.sequence)),
                "learner": LearnerConfig(num_ranks=2, sequence_parallel=2),
            },
            "learner.sequence_parallel=1",
        ),
    ],
    ids=["by success", "by hint", "grpo", "lone", "at its end", "ulysses"],
)
def test_the_policy_gradients_share_can_be_raised_where_there_is_one(changes, said):
    guards = GuardsConfig(response=Response.raise_policy_gradient)
    assert said in refusal(lambda: Config(**{"algorithm": SDPOConfig(), "guards": guards, **changes}))
    Config(algorithm=SDPOConfig(), guards=guards)


@pytest.mark.parametrize(
    ("keep_best", "every", "save", "said"),
    [(0, 1, 1, "checkpoint.keep_best of at least 1"), (1, 0, 1, "got 0 and 1"), (1, 3, 2, "got 3 and 2")],
)
def test_a_run_stops_at_its_best_only_if_that_is_known_and_kept(keep_best, every, save, said):
    def build(keep_best, every, save):
        return Config(
            algorithm=GRPOConfig(),
            guards=GuardsConfig(response=Response.stop_at_best),
            evaluation=EvaluationConfig(every=every),
            checkpoint=CheckpointConfig(keep_best=keep_best, every=save),
        )

    assert said in refusal(lambda: build(keep_best, every, save))
    build(1, 4, 2)


def test_a_run_that_only_warns_is_never_refused_for_its_guards():
    for algorithm in (
        GRPOConfig(),
        SDPOConfig(routing=ByHint()),
        SDPOConfig(teacher=LiveTeacher()),
    ):
        assert Config(algorithm=algorithm).guards.response is Response.warn


def test_a_config_without_an_algorithm_says_what_is_missing():
    """From Python: it raised AttributeError, of a string that stands for what is missing."""
    assert "algorithm must be given, as SDPOConfig() or GRPOConfig()" in refusal(Config)


def test_evidence_weighs_a_policy_gradient_that_is_there():
    """Elsewhere it would change nothing, in silence: it has no loss of its own."""
    sentence = refusal(lambda: SDPOConfig(loss="evidence", routing=Blend(policy_gradient_share=0.5)))
    assert "algorithm.routing.kind=auxiliary; got kind=blend" in sentence
    SDPOConfig(loss="evidence", routing=Auxiliary())


@pytest.mark.parametrize("loss", ["gated", "evidence"])
def test_later_divergences_are_credited_where_a_divergence_is_the_loss(loss):
    sentence = refusal(lambda: SDPOConfig(loss=loss, routing=Auxiliary(), future_credit=0.5))
    assert "algorithm.loss=divergence only" in sentence
    assert f"got future_credit=0.5 with loss={loss}" in sentence


def test_a_groups_deviation_divides_a_groups_advantages_alone():
    sentence = refusal(lambda: PolicyGradientConfig(advantage="batch", divide_by_std=True))
    assert "algorithm.policy_gradient.advantage=group only; got advantage=batch" in sentence


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: PolicyGradientConfig(loss="ppo2"), "algorithm.policy_gradient.loss must be one of clipped, cispo"),
        (
            lambda: PolicyGradientConfig(advantage="gae"),
            "algorithm.policy_gradient.advantage must be one of group, leave_one_out",
        ),
        (lambda: SDPOConfig(loss="mse"), "algorithm.loss must be one of divergence, gated, evidence"),
    ],
    ids=["loss", "advantage", "hindsight"],
)
def test_an_unheard_of_variant_is_refused_with_those_there_are(build, key):
    assert refusal(build).startswith(key)


@pytest.mark.parametrize(
    "algorithm",
    [
        GRPOConfig(policy_gradient=PolicyGradientConfig(rollout_correction=RolloutCorrection.sequence_mask)),
        SDPOConfig(rollout_correction=RolloutCorrection.sequence_truncate),
    ],
    ids=["policy gradient", "distillation"],
)
def test_a_weight_of_whole_responses_is_refused_where_no_rank_sees_one(algorithm):
    assert algorithm.needs_whole_rows
    assert "rollout_correction=sequence_truncate or sequence_mask" in refusal(lambda: algorithm.refuse_split_rows(2))
