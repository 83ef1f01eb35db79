"""Many runs from one command: which points there are, what they are called, and what Slurm is asked for each."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sdpo.cli import main
from sdpo.config import SlurmLauncherConfig
from sdpo.config.compose import launcher_config, sweep_points, train_config
from sdpo.errors import UserError
from sdpo.sweep import here, slurm
from sdpo.sweep.names import Point, points

SCRIPTS = Path(__file__).parent.parent.parent / "launch" / "slurm"


def names(*words: str) -> list[str]:
    every = sweep_points(words)
    return [point.name for point in points(every, [train_config(one).name for one in every])]


def test_a_sweep_is_every_combination_in_hydras_syntax() -> None:
    assert sweep_points(["algorithm=sdpo,grpo", "seed=range(1,3)", "env.options.families=[a,b]", "name=x"]) == [
        (algorithm, seed, "env.options.families=[a,b]", "name=x")
        for algorithm in ("algorithm=sdpo", "algorithm=grpo")
        for seed in ("seed=1", "seed=2")
    ]
    assert sweep_points([]) == [()]


@pytest.mark.parametrize("word", ["learner.lr=interval(0,1)", "model=glob(*)", "seed=1,,2", "seed=(", "\x00=1"])
def test_what_is_no_list_of_values_is_refused(word: str) -> None:
    with pytest.raises(UserError):
        sweep_points([word])


def test_names_stay_a_runs_own_where_they_differ_and_say_what_sets_points_apart_where_not() -> None:
    assert names("algorithm=sdpo,grpo", "seed=1,2") == [
        f"code-{algorithm}-smollm2_135m-s{seed}" for algorithm in ("sdpo", "grpo") for seed in (1, 2)
    ]
    assert names("seed=1,2", "learner.lr=1e-5,1e-6") == [
        f"code-sdpo-smollm2_135m-s{seed}-lr={rate}" for seed in (1, 2) for rate in ("1e-05", "1e-06")
    ]
    assert names("name=mine", "seed=1,2", "batch.num_tasks=8") == ["mine-seed=1", "mine-seed=2"]


def test_names_are_folder_names_and_no_two_alike_whatever_the_values() -> None:
    every = [(f"model.path=/a/{index % 2}/../{'x' * 300}", "env.x=a b;rm -rf /") for index in range(4)]
    found = [point.name for point in points(every, ["same"] * 4)]
    assert len(set(found)) == 4
    assert all("/" not in name and len(name) < 140 for name in found)


def test_a_launcher_that_is_misspelt_and_one_without_a_sweep_are_refused() -> None:
    assert launcher_config([]) is None
    assert launcher_config(["hydra/launcher=slurm", "hydra.launcher.partition=gpu"]) == SlurmLauncherConfig(partition="gpu")
    for words in (["hydra/launcher=slurmm"], ["hydra/launcher=slurm", "hydra.launcher.partitio=gpu"]):
        with pytest.raises(UserError):
            launcher_config(words)
    with pytest.raises(UserError, match="Add -m"):
        train_config(["hydra/launcher=slurm"])


def job(*words: str, launcher: SlurmLauncherConfig | None = None) -> slurm.Job:
    every = ("cluster=slurm", "runs_dir=/shared", "name=a", *words)
    return slurm.job(Point(name="a", words=every), train_config(every), launcher or SlurmLauncherConfig())


def test_slurm_is_asked_for_what_the_cluster_says_and_runs_the_words_as_they_are() -> None:
    words = ("cluster.nodes=4", "cluster.gpus_per_node=8", "cluster.cpus_per_node=16", "env.options.note='$(reboot) `x`; \"'")
    found = job(*words, launcher=SlurmLauncherConfig(time="1:00:00", srun=["--container-image=a b"], program=["sdpo"]))
    assert {"--nodes=4", "--gpus-per-node=8", "--cpus-per-task=16", "--ntasks-per-node=1", "--time=1:00:00", "--requeue"} <= set(
        found.options
    )
    assert "--output=/shared/a/logs/slurm-%j.log" in found.options
    (line,) = [line for line in found.script.splitlines() if line.startswith("srun ")]
    assert shlex.split(line) == [
        *("srun", "--cpus-per-task=16", "--container-image=a b", "sdpo", "train"),
        *("cluster=slurm", "runs_dir=/shared", "name=a", *words),
    ]
    with pytest.raises(UserError, match="Add cluster=slurm"):
        job("cluster=local")


@pytest.mark.parametrize("note", ["x\nEND\ntouch pwned\n", "END", "\nEND\nEND_\n$(touch pwned)\n`touch pwned`\n'\n"])
def test_what_a_dry_run_shows_is_the_script_whatever_a_word_holds(note: str, tmp_path: Path) -> None:
    """A word with the end of the script in it ended the script there; what followed was run by the shell it was pasted into."""
    words = ("cluster=slurm", "runs_dir=/shared", "name=a", f"env.options.note={note}")
    launcher = SlurmLauncherConfig(setup=["cat <<END", "x", "END"], program=["sdpo"])
    found = slurm.job(Point(name="a", words=words), train_config(words[:-1]), launcher)
    (tmp_path / "sbatch").write_text("#!/bin/sh\ncat > script\n")
    (tmp_path / "sbatch").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash"], input=slurm.shown(found), text=True, env=environment, cwd=tmp_path, check=True)
    assert (tmp_path / "script").read_text() == found.script
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sbatch", "script"]


def test_a_percent_sign_in_a_path_is_none_of_slurms_own() -> None:
    """``%u`` in the name of a run became the user's name in the log's path, in a folder that was not there."""
    words = ("cluster=slurm", "runs_dir=/shared/100%u", "name=a")
    found = slurm.job(Point(name="a", words=words), train_config(words), SlurmLauncherConfig())
    assert "--output=/shared/100%%u/a/logs/slurm-%j.log" in found.options
    assert found.log == Path("/shared/100%u/a/logs/slurm-%j.log")


@pytest.mark.parametrize(("code", "is_requeued"), [(0, False), (1, False), (2, False), (130, False), (138, True), (143, True)])
def test_a_job_goes_back_into_the_queue_only_if_it_was_asked_to_stop(code: int, is_requeued: bool, tmp_path: Path) -> None:
    for name, text in {"srun": f"exit {code}", "scontrol": f'echo "$@" > {tmp_path}/asked'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "12", "SLURM_JOB_NUM_NODES": "1"}
    done = subprocess.run(["bash"], input=job().script, text=True, env=environment, check=False)
    assert done.returncode == code
    assert (tmp_path / "asked").exists() == is_requeued


def test_the_script_by_hand_does_the_same() -> None:
    assert (SCRIPTS / "train.sbatch").read_text().endswith(slurm.REQUEUE)


def test_one_point_that_fails_stops_no_other_and_each_gets_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    bad, fine = (Point(name=name, words=("--help",) if name == "fine" else ("no.such.key=1",)) for name in ("bad", "fine"))
    assert here.run([bad, fine], said.append) == 1
    assert said[-2:] == ["bad: failed, exit code 2", "fine: done"]


HEARING = """
import pathlib, signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
pathlib.Path(sys.argv[1], "hears").touch()
until = time.monotonic() + 10.0
while not heard and time.monotonic() < until:
    time.sleep(0.02)
time.sleep(0.3)
pathlib.Path(sys.argv[1], "heard").write_text(str(len(heard)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_run_that_goes_on_hears_once_of_whatever_ends_the_sweep(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not hear of a SIGINT to the sweep alone, and heard two of a SIGTERM to the group."""
    monkeypatch.setattr(here, "own_module", lambda name, *words: [sys.executable, "-P", "-c", HEARING, str(tmp_path)])

    def interrupt() -> None:
        until = time.monotonic() + 10.0
        while not (tmp_path / "hears").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code = here.run([Point(name="one", words=()), Point(name="two", words=())], lambda line: None)
    thread.join()
    assert code == 128 + number
    assert (tmp_path / "heard").read_text() == "1"


def test_a_dry_run_shows_every_point_and_starts_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", "--dry-run", "seed=1,2", f"runs_dir={tmp_path}"]
    assert main(["train", *words]) == 0
    assert capsys.readouterr().out.count("sdpo train seed=") == 2
    assert main(["train", *words, "hydra/launcher=slurm", "cluster=slurm"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("srun ") == 2
    assert f"{sys.executable} -P -m sdpo.cli train seed=1" in shown
    assert not list(tmp_path.iterdir())


def test_a_point_that_is_not_sound_is_refused_before_any_is_started(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-m", "batch.group_size=4,0", f"runs_dir={tmp_path}"]) == 2
    assert "batch.group_size=0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
