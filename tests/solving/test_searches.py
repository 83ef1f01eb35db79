"""What a search is asked for, and what is refused before anything starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from sdpo.config import HindsightConfig
from sdpo.config.compose import discovery_config, solve_config
from sdpo.errors import MachineError, UserError
from sdpo.plugins.seams import STRATEGIES
from sdpo.run.files import write_whole
from sdpo.run.folder import flat, plain
from sdpo.solving.claim import _MAY_DIFFER, claim, name_of
from sdpo.solving.command import slug
from sdpo.solving.folder import SearchFolder
from sdpo.solving.following import Following
from sdpo.solving.jobs import Job
from sdpo.solving.search import Ending, Search, Step, Tried, absorbed
from sdpo.solving.tasks import tasks_named, the_task
from sdpo.solving.workers import run_workers
from sdpo.types import Message, Role, Task, Verdict

IDS = ["words/a,b", "words/it's [1]", "words/c=d", "words/plain"]


class Words:
    """Two splits."""

    name = "words"

    def tasks(self, split: str, seed: int) -> Sequence[Task]:
        if split not in ("train", "heldout"):
            raise ValueError(f"no split {split!r}")
        ids = IDS[:2] if split == "train" else IDS[2:]
        return [Task(id=one, env="words", messages=(Message(role=Role.user, content=one),)) for one in ids]

    def verify(self, task: Task, completion: str) -> Verdict:
        return Verdict(reward=0.0)


class Reading(Words):
    """Reads files too."""

    def from_file(self, path: str) -> Sequence[Task]:
        if not Path(path).is_file():
            raise ValueError(f"there is no {path}")
        names = Path(path).read_text().split()
        return [Task(id=f"words/{one}", env="words", messages=(Message(role=Role.user, content=one),)) for one in names]


CONFIG = solve_config(["task=x"])


@pytest.mark.parametrize("word", IDS)
def test_an_id_is_taken_as_it_is_whatever_its_characters(word: str) -> None:
    assert solve_config([f"task={word}"]).task == word
    assert the_task(CONFIG, Words(), word).id == word if "," not in word else True


def test_ids_with_commas_between_them_are_several_tasks() -> None:
    config = solve_config(["tasks=words/plain,words/c=d"])
    assert [task.id for task in tasks_named(config, Words(), config.tasks or "")] == ["words/plain", "words/c=d"]
    assert [task.id for task in tasks_named(config, Words(), "all")] == IDS


def test_a_task_that_does_not_exist_is_said_with_those_that_are_like_it() -> None:
    with pytest.raises(UserError, match=r"'words/plane' is none of the 4\. Did you mean words/plain"):
        the_task(CONFIG, Words(), "words/plane")
    with pytest.raises(UserError, match=r"\*\*\*.* There is, for example"):
        the_task(CONFIG, Words(), "***")


@pytest.mark.parametrize("words", ["", " , ", "words/plain,words/plain", "words/plain,nothing"])
def test_senseless_lists_are_refused(words: str) -> None:
    with pytest.raises(UserError):
        tasks_named(CONFIG, Words(), words)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="no split 'hard'"):
        tasks_named(solve_config(["tasks=all", "split=hard"]), Words(), "all")


def test_a_file_holds_one_task(tmp_path: Path) -> None:
    file = tmp_path / "problem.jsonl"
    file.write_text("one")
    assert the_task(CONFIG, Reading(), str(file)).id == "words/one"
    file.write_text("one two")
    with pytest.raises(UserError, match="has 2 "):
        the_task(CONFIG, Reading(), str(file))
    with pytest.raises(UserError, match="there is no gone"):
        the_task(CONFIG, Reading(), "gone.jsonl")
    with pytest.raises(UserError, match="has no from_file"):
        the_task(CONFIG, Words(), str(file))


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ([], "give task= .* neither"),
        (["task=a", "tasks=b"], "give task= .* both"),
        (["task=a", "budget.attempts=0"], "budget.attempts must be positive"),
        (["task=a", "budget.attempts=null"], "needs a budget"),
        (["task=a", "batch.num_tasks=2"], "batch.num_tasks must be 1"),
        (["task=a", "strategy=luck"], "strategy"),
        (["task=a", "num_workers=2"], "needs in_process=true"),
        (["task=a", "in_process=true", "learner.num_ranks=2"], "one engine and one rank"),
        (["task=a", "rollout.staleness=1"], "rollout.staleness must be 0"),
        (["task=a", "algorithm.hindsight.choice=demonstration_only"], "must show feedback"),
        (["task=a", "algorithm.teacher.kind=on_gain"], "got on_gain. Set ema"),
        (["task=a", "algorithm.teacher.kind=external", "algorithm.teacher.path=x"], "got external. Set ema"),
        (["task=a", "algorithm=sc_sdpo"], "question_weight must be none"),
        (
            ["task=a", "learner.num_ranks=2", "learner.sequence_parallel=2", "algorithm.future_credit=1"],
            "learner.sequence_parallel must be 1",
        ),
        (["task=a", "context_tokens=100"], "context_tokens must be at least"),
        (["task=a", "strategy=sdpo_multi_turn", "context_tokens=2000"], "hindsight.max_prompt_tokens must be at least 2000"),
        (["task=a", "name=../up"], "plain folder name"),
        (["task=a", "budget.atempts=3"], "budget.attempts"),
    ],
)
def test_what_cannot_be_searched_is_refused(words: list[str], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        solve_config(words)


@pytest.mark.parametrize("words", [["strategies=[]"], ["strategies=[sdpo,sdpo]"], ["num_seeds=0"], ["hard.max_rate=2"]])
def test_what_cannot_be_compared_is_refused(words: list[str]) -> None:
    with pytest.raises(UserError):
        discovery_config(words)


def test_the_settings_of_the_paper_are_shipped() -> None:
    config = solve_config(["experiment=solve_livecodebench", "task=a", "env.options.path=lcb.jsonl"])
    algorithm, learner = config.algorithm, config.learner
    assert (config.batch.num_tasks, config.batch.group_size, algorithm.support.num_ids) == (1, 16, 20)
    assert (algorithm.divergence, algorithm.teacher.ema_rate, algorithm.advantage_clip) == ("reverse_kl", 0.01, 5.0)
    assert (learner.lr, learner.weight_decay, learner.grad_clip, learner.lora.rank) == (1e-6, 0.01, 1.0, 0)
    assert discovery_config(["experiment=solve_livecodebench", "env.options.path=lcb.jsonl"]).strategies == list(
        STRATEGIES.built_in
    )


def test_a_folder_belongs_to_the_config_it_began_with(tmp_path: Path) -> None:
    claim(tmp_path, solve_config(["task=a"]))
    claim(tmp_path, solve_config(["task=a", "budget.attempts=9000", "in_process=true"]))
    with pytest.raises(UserError, match="task was 'a' and is now 'b'"):
        claim(tmp_path, solve_config(["task=b"]))
    with pytest.raises(UserError, match=r"learner\.lr was"):
        claim(tmp_path, solve_config(["task=a", "learner.lr=1"]))


def test_every_key_that_may_change_is_one_that_there_is_and_lets_no_other_through() -> None:
    known = {*flat(plain(solve_config(["task=a"]))), *flat(plain(discovery_config([])))}
    open_ended = (".", "_")
    for key in _MAY_DIFFER:
        assert any(other == key or (key.endswith(open_ended) and other.startswith(key)) for other in known), key
    exact = [key for key in _MAY_DIFFER if not key.endswith(open_ended)]
    assert [other for other in known for key in exact if other.startswith(key) and other != key] == []


def test_each_id_has_a_folder_of_its_own() -> None:
    hostile = ["a/b", "a_b", "a b", "../../etc", "." * 9, "x" * 500, "x" * 501, "\x00", "é", ""]
    assert len({slug(one) for one in hostile}) == len(hostile)
    assert all("/" not in name_of(one) and not name_of(one).startswith(".") for one in hostile)


def test_a_worker_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    screen, words = Console(file=StringIO()), ["task=a", "budget.attempts=0"]
    with pytest.raises(MachineError, match=r"one had 2[\s\S]*worker-0.log[\s\S]*budget\.attempts must be positive"):
        run_workers("solve", words, "a", 2, tmp_path / "logs", screen, lambda: "0 of 2 [searches] over")
    assert screen.file.getvalue() == "0 of 2 [searches] over\n"  # type: ignore[attr-defined]


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from rich.console import Console; from sdpo.solving.workers import run_workers\n"
        "from sdpo.terminal.stop_request import StopRequest, stopping\n"
        "with stopping(StopRequest()):\n"
        f"    run_workers('solve', ['task=no-such-task'], 'a', 2, Path({str(tmp_path)!r}), Console(), lambda: 'they work')"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "they work\n"
    workers = psutil.Process(parent.pid).children()
    assert len(workers) == 2
    parent.terminate()
    parent.wait(timeout=60)
    assert "no-such-task" not in (tmp_path / "worker-0.log").read_text(), "they had no time to end by themselves"
    assert not any(worker.is_running() for worker in workers)


def _right() -> Tried:
    return Tried(index=0, text="!", num_tokens=1, finish="stop", reward=1.0, feedback=None)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_searches_that_others_work_on_are_followed_by_what_their_folders_say(tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("a b c")
    jobs = [
        Job(
            task=task,
            strategy="best_of_k",
            seed=0,
            folder=SearchFolder(tmp_path / task.id),
            title=task.id,
        )
        for task in Reading().from_file(str(names))
    ]
    for job in jobs:
        job.folder.path.mkdir(parents=True)
    jobs[0].finish(Search(jobs[0].task, HindsightConfig()), Ending.attempts)  # at a smaller budget, before
    clock = Clock()
    following = Following(jobs, clock)
    assert following.sentence() == "0 of 3 searches over"
    clock.seconds = 500.0
    solved = absorbed(
        Search(jobs[1].task, HindsightConfig()),
        [Step(number=1, seconds=1.0, attempts=(_right(),), learned_rows=0)],
    )
    jobs[1].finish(solved, Ending.solved)
    assert following.sentence() == "1 of 3 searches over, 1 solved"
    clock.seconds = 600.0
    assert following.sentence() == "1 of 3 searches over, 1 solved", "said anew only once there is news"
    jobs[0].finish(Search(jobs[0].task, HindsightConfig()), Ending.tokens)
    assert following.sentence() == "2 of 3 searches over, 1 solved; ETA 1 min 40 s"


def test_several_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    """They shared a scratch file, and who came second found it gone."""
    file = tmp_path / "hard_set.json"
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(lambda number: write_whole(file, f"{number}\n" * 1000), range(400)))
    assert len(set(file.read_text().split())) == 1
    assert list(tmp_path.iterdir()) == [file]
