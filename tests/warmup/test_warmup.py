"""Pairs are verified, come from training tasks alone and are the same for the same seed; updates mix them as they are told to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

from sdpo.attempts.survey import Survey
from sdpo.config import WarmupConfig
from sdpo.config.compose import warmup_config
from sdpo.envs.base import Environment
from sdpo.errors import UserError
from sdpo.hindsight.hints import hint_of
from sdpo.hindsight.rendering import ChatRenderer
from sdpo.protocols import Sampler
from sdpo.types import (
    Attempt,
    Completion,
    Finish,
    Group,
    Hint,
    Message,
    Prompt,
    Ranks,
    Role,
    Sampling,
    SetAside,
    Task,
    Verdict,
)
from sdpo.warmup.exploration import Answer, Explored, Failure, explore
from sdpo.warmup.measurement import in_words, table
from sdpo.warmup.pairs import Pair, Pairs, counts, make_pairs
from sdpo.warmup.preparation import prepare
from sdpo.warmup.schedule import SOURCES, shares, updates
from sdpo.warmup.writing import Writer, writer
from tests.letters import Letters, Sums
from tests.loop.fakes import FakeReport
from tests.tiny import write_tiny_model

TINY = Path(__file__).parent.parent / "letters.py"
SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=12)
TASKS = tuple(Sums().tasks("train", 0)[:6])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def renderer(model: Path) -> ChatRenderer:
    tokenizer = AutoTokenizer.from_pretrained(model)
    return ChatRenderer(tokenizer=tokenizer, chat_template_options={}, max_prompt_tokens=100, max_hindsight_tokens=300)


@pytest.fixture(scope="module")
def pen(model: Path, renderer: ChatRenderer) -> Writer:
    return writer(str(model), renderer.tokenizer, renderer)


class Says:
    """An engine that answers the task at a place with given texts, one an attempt."""

    def __init__(self, pen: Writer, texts: Mapping[int, Sequence[str]], cut: bool = False) -> None:
        self._pen, self._texts, self._cut = pen, texts, cut

    def load(self, weights: object, *, version: int) -> None:
        """Not asked for."""

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[Prompt, Completion]]:
        for prompt in prompts:
            texts = self._texts.get(prompt.task_index, ())
            completion = self._pen.completion(texts[prompt.attempt_index] if prompt.attempt_index < len(texts) else "no idea")
            yield prompt, replace(completion, finish=Finish.length) if self._cut else completion


class Judges:
    """The verifier of an environment, without processes."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def reply(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, SetAside]]:
        raise NotImplementedError

    def verify(
        self, tasks_P: Sequence[Task], completions: Iterable[tuple[Prompt, Completion]]
    ) -> Iterator[tuple[Prompt, Attempt]]:
        for prompt, completion in completions:
            verdict = self._environment.verify(tasks_P[prompt.task_index], completion.text)
            yield prompt, Attempt(completion=completion, verdict=verdict)


def explored(
    environment: Environment,
    pen: Writer,
    renderer: ChatRenderer,
    texts: Mapping[int, Sequence[str]] | None = None,
    *,
    tasks: Sequence[Task] = TASKS,
    num_edits: int = 4,
    seed: int = 0,
    cut: bool = False,
) -> tuple[Explored, ...]:
    survey = Survey(
        sampler=Sampler(engine=Says(pen, texts or {}, cut), verifier=Judges(environment), renderer=renderer),
        tasks_P=tuple(tasks),
        num_attempts=2,
        sampling=SAMPLING,
        seed=seed,
        max_set_aside_share=0.2,
    )
    return explore(survey, environment, pen, num_edits, FakeReport([]))


def all_of(pairs: Pairs) -> list[Pair]:
    return [pair for of_source in pairs.values() for pair in of_source]


OWN = {0: ["a = 6", "a = 5"], 2: ["x = 1", "c = 1"]}
"""``a = 6`` is right, ``c = 1`` too: as the references, which for ``c`` is 1."""


def test_every_answer_that_is_learned_is_right_and_ends_its_turn(pen: Writer, renderer: ChatRenderer) -> None:
    environment = Sums()
    pairs = all_of(make_pairs(explored(environment, pen, renderer, OWN), renderer, 0))
    assert len(pairs) > 20
    task_of = {task.id: task for task in TASKS}
    for pair in pairs:
        text = renderer.tokenizer.decode(list(pair.response_ids), skip_special_tokens=True)
        assert environment.verify(task_of[pair.task_id], text).is_solved
        assert pair.response_ids[-1] == renderer.tokenizer.eos_token_id
        assert pair.response_ids.count(pair.response_ids[-1]) == 1


def test_feedback_is_what_the_environment_said_of_a_wrong_answer(pen: Writer, renderer: ChatRenderer) -> None:
    """And the prompt that shows it is the one that training would show."""
    environment = Sums()
    found = explored(environment, pen, renderer, OWN)
    pairs = make_pairs(found, renderer, 0)
    prompts = {pair.prompt_ids for pair in pairs["feedback"]}
    expected = set()
    for task in found:
        assert task.failures
        for failure in task.failures:
            assert failure.feedback.startswith(("The number is", "'"))
            expected.add(renderer.hindsight_prompt(task.group.task, hint_of(demonstration=None, feedback=failure.feedback)))
    assert prompts == expected
    said = "'x' is not the letter that was asked for."
    assert Failure(feedback=said, is_own=True) in found[2].failures


@pytest.mark.parametrize("what", ["pairs", "updates"])
def test_everything_is_a_function_of_the_seed(what: str, pen: Writer, renderer: ChatRenderer) -> None:
    def made(seed: int) -> object:
        found = explored(Sums(), pen, renderer, OWN, seed=seed)
        pairs = make_pairs(found, renderer, seed)
        if what == "pairs":
            return pairs
        config = composed(f"seed={seed}")
        made = updates(pairs, [task.group for task in found], config, Ranks(num=1, pairs_per_token=400.0))
        return [[batch.response_ids_N.tolist() for (batches,) in [u.micro_batches] for batch in batches] for u in made]

    assert made(0) == made(0)
    assert made(0) != made(1)


def test_pairs_come_from_training_tasks_alone(model: Path) -> None:
    config = composed(f"model.path={model}", "model.name=tiny", "env=custom", f"env.name={TINY}:Sums", "pairs.num_tasks=5")
    ready = prepare(config, print)
    train = {task.id for task in Sums().tasks("train", 0)}
    assert len(ready.tasks_P) == 5
    assert {task.id for task in ready.tasks_P} < train
    assert not {task.id for task in ready.heldout} & train
    assert [task.id for task in prepare(config, print).tasks_P] == [task.id for task in ready.tasks_P]


def test_a_demonstration_is_another_right_answer_where_there_is_one() -> None:
    """``shown`` is the demonstration in words; the fake renderer puts it into the prompt a token a character."""

    class Spells:
        def hindsight_prompt(self, task: Task, hint: Hint) -> tuple[int, ...]:
            return tuple(map(ord, hint.of("demonstration") or "-"))

    def shown(*texts: str) -> set[tuple[str, str]]:
        answers = tuple(Answer(text=text, token_ids=tuple(map(ord, text)), is_own=text != "reference") for text in texts)
        group = Group(task=TASKS[0], prompt_ids=(1,), attempts=())
        pairs = make_pairs([Explored(group=group, answers=answers, failures=())], Spells(), 0)  # type: ignore[arg-type]
        spelled = [("".join(map(chr, pair.response_ids)), "".join(map(chr, pair.prompt_ids))) for pair in all_of(pairs)]
        assert len(spelled) == len(texts)
        return set(spelled)

    assert shown("reference") == {("reference", "reference")}
    assert shown("reference", "own") == {("reference", "own"), ("own", "reference")}
    assert all(target != demonstration for target, demonstration in shown("reference", "one", "two", "three"))


def test_own_answers_that_were_cut_off_are_shown_and_not_learned(pen: Writer, renderer: ChatRenderer) -> None:
    class Knowing(Letters):
        def reference(self, task: Task) -> str:
            return "abcdefghijklmnopqrstuvwxyz"[::5]

    (found, *_) = explored(Knowing(), pen, renderer, {0: ["a cut one", "another a"]}, cut=True)
    assert [answer.token_ids is None for answer in found.answers] == [True, True, False]
    pairs = all_of(make_pairs([found], renderer, 0))
    assert {pair.origin for pair in pairs} == {"reference-own"}


def test_an_edit_that_is_still_right_is_neither_a_failure_nor_an_answer(pen: Writer, renderer: ChatRenderer) -> None:
    class Lenient(Sums):
        def verify(self, task: Task, completion: str) -> Verdict:
            return Verdict(reward=1.0)

    found = explored(Lenient(), pen, renderer)
    for task in found:
        assert task.failures == ()
        assert {answer.text for answer in task.answers} == {"no idea", Sums().reference(task.group.task)}


def test_a_reference_that_the_environment_refuses_is_not_learned(pen: Writer, renderer: ChatRenderer) -> None:
    class Confused(Sums):
        def verify(self, task: Task, completion: str) -> Verdict:
            return Verdict(reward=0.0, feedback="no")

    found = explored(Confused(), pen, renderer)
    assert all(task.answers == () for task in found)
    with pytest.raises(UserError, match=r"needs right answers to learn; .* none of the model's own 12 attempts"):
        make_pairs(found, renderer, 0)


def test_an_environment_without_a_reference_gives_pairs_from_the_models_own_successes(
    pen: Writer, renderer: ChatRenderer
) -> None:
    tasks = Letters().tasks("train", 0)[:2]
    found = explored(Letters(), pen, renderer, {0: ["a", "zzz"], 1: ["zzz", "xxx"]}, tasks=tasks)
    pairs = make_pairs(found, renderer, 0)
    assert counts(pairs) == {"demonstration": {"own-itself": 1}, "feedback": {"own-own": 1}, "both": {"own-own": 1}}
    assert {pair.task_id for pair in all_of(pairs)} == {tasks[0].id}


def test_an_environment_that_raises_for_a_reference_is_named(pen: Writer, renderer: ChatRenderer) -> None:
    class Forgetful(Letters):
        def reference(self, task: Task) -> str:
            raise KeyError(task.id)

    with pytest.raises(UserError, match="environment 'letters' raised, for 'letters/a', KeyError"):
        explored(Forgetful(), pen, renderer)


def test_a_turn_ends_as_the_template_ends_it_if_the_engine_stops_there(model: Path, tmp_path: Path) -> None:
    """The tokenizer's end of sequence may be another, as in Gemma's and Llama 3's models."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token = "<|im_start|>"
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    rendered = ChatRenderer(tokenizer=tokenizer, chat_template_options={}, max_prompt_tokens=100, max_hindsight_tokens=300)
    tokenizer.save_pretrained(tmp_path)
    GenerationConfig(eos_token_id=[start, end]).save_pretrained(tmp_path)
    assert writer(str(tmp_path), tokenizer, rendered).end_of_turn == end
    GenerationConfig().save_pretrained(tmp_path)
    assert writer(str(tmp_path), tokenizer, rendered).end_of_turn == start  # the engine knows no other


# Updates.


def composed(*words: str) -> WarmupConfig:
    return warmup_config(
        ["to=somewhere", "num_updates=6", "pairs_per_update=5", "plain_per_update=2", "sampling.max_prompt_tokens=100",
         "algorithm.hindsight.max_prompt_tokens=300", "sampling.max_response_tokens=12", *words]
    )  # fmt: skip


def pair(source: str, index: int) -> Pair:
    return Pair(task_id=f"t{index}", source=source, origin="-", prompt_ids=(1, index), response_ids=(2, index, 3))


def plain_group(index: int) -> Group:
    completion = Completion(token_ids=(7, 8), logprobs=(-1.0, -2.0), text="", finish=Finish.stop, weights_version=0)
    task = Task(id=f"t{index}", env="test", messages=(Message(role=Role.user, content="?"),))
    return Group(task=task, prompt_ids=(5, index), attempts=(Attempt(completion=completion, verdict=Verdict(reward=0.0)),) * 2)


def test_an_update_has_as_many_pairs_and_plain_rows_as_it_is_told_to() -> None:
    pairs = {source: [pair(source, index) for index in range(3)] for source in SOURCES}
    made = list(updates(pairs, [plain_group(0), plain_group(1)], composed(), Ranks(num=2, pairs_per_token=400.0)))
    assert len(made) == 6
    for update in made:
        assert update.num_supervised_tokens == 5 * 3
        assert update.num_distilled_tokens == 2 * 2
        assert update.num_loss_tokens == 0
        for batch in (batch for of_rank in update.micro_batches for batch in of_rank):
            assert not (batch.distilled_N & (batch.supervised_weights_N != 0.0)).any()


def test_without_a_kl_nothing_is_distilled() -> None:
    pairs = {"feedback": [pair("feedback", 0)]}
    made = updates(pairs, [plain_group(0)], composed("kl_weight=0", "plain_per_update=0"), Ranks(num=1, pairs_per_token=400.0))
    assert all(update.num_distilled_tokens == 0 < update.num_supervised_tokens for update in made)


def test_sources_have_their_shares_to_within_a_pair_at_any_time() -> None:
    from sdpo.warmup.schedule import _mixed

    pairs = {source: [pair(source, index) for index in range(7)] for source in SOURCES}
    config = composed("pairs.demonstration=0.5", "pairs.feedback=0.3", "pairs.both=0.2")
    drawn = [drawn.source for drawn in islice(_mixed(pairs, config), 100)]
    for num in range(1, 101):
        for source, share in shares(pairs, config).items():
            assert abs(drawn[:num].count(source) - share * num) <= 1.0


def test_a_source_without_pairs_leaves_its_share_to_the_others() -> None:
    pairs = {source: [pair(source, 0)] for source in ("demonstration", "both")}
    assert shares(pairs, composed()) == pytest.approx({"demonstration": 2 / 3, "both": 1 / 3})
    with pytest.raises(UserError, match="only pairs with demonstration and both, whose shares are 0"):
        shares(pairs, composed("pairs.demonstration=0", "pairs.feedback=1", "pairs.both=0"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pairs.both=0.5"], "must add up to 1"),
        (["pairs.feedback=-0.4"], "pairs.feedback must lie between"),
        (["lr=1e-5", "learner.lr=2e-5"], "learner.lr follows it"),
        (["algorithm.teacher.kind=ema"], "needs algorithm.teacher.kind=frozen"),
        (["algorithm=grpo"], "algorithm"),
        (["algorithm.routing.policy_gradient_share=0.5"], "Leave those to the run that follows"),
        (["algorithm=opsd"], "counts every token of the plain rows alike"),
        (["algorithm=distil"], "needs algorithm.teacher.kind=frozen"),
        (["algorithm.rollout_clip=2"], "rollout_clip and .* must be null"),
        (["kl_weight=0"], "go together"),
        (["plain_per_update=0"], "go together"),
        (["sampling.max_turns=2"], "sampling.max_turns must be 1"),
        (["evaluation.num_attempts=1"], "evaluation.num_attempts must be at least 2"),
        (["num_updates=0"], "num_updates must be at least 1"),
        (["learner.num_epochs=2"], "learner.num_epochs must be 1 in a warm-up"),
        (["algorithm.hindsight.max_prompt_tokens=50"], "repeats the question"),
        (["num_update=1"], "Did you mean num_updates"),
    ],
)
def test_a_config_that_cannot_work_is_refused_in_a_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        composed(*words)


def test_the_folder_must_be_named() -> None:
    with pytest.raises(UserError, match="to must be given; add to=VALUE"):
        warmup_config(["num_updates=3"])


def test_what_could_not_be_measured_is_a_dash_in_the_table() -> None:
    before = {"plain": 0.25, "plain/se": 0.05, "demonstration/lift": 0.1}
    assert in_words(before) == "success 25.0% ± 5.0%, lift of demonstration +10.0%, of feedback -"
    rows = table(before, {"plain": 0.5, "plain/se": 0.05}, 4)
    cells = [list(column.cells) for column in rows.columns]
    assert cells[1] == ["25.0% ± 5.0%", "-", "+10.0%", "-", "-"]
    assert cells[3][0] == "+25.0%"
    assert cells[2][2] == "-"
