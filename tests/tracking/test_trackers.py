"""What trackers are told, once and in order; and that one which fails, hangs or is missing costs a run nothing."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

from sdpo.config import Config, EnvConfig, MlflowConfig, ModelConfig, SDPOConfig, TrackingConfig, WandbConfig, WandbMode
from sdpo.errors import UserError
from sdpo.run.folder import RunFolder
from sdpo.tracking import background, packages, tracker
from sdpo.tracking.background import BackgroundSink, closed
from sdpo.tracking.identity import Identity
from sdpo.tracking.mlflow import as_name
from sdpo.tracking.sink import Record, Sink

PATIENCE_S = 20.0


def step(number: int) -> Record:
    return Record(step=number, is_evaluation=False, metrics={"loss": 0.5})


def evaluation(number: int) -> Record:
    return Record(step=number, is_evaluation=True, metrics={"heldout/success": 0.5})


def test_every_record_has_a_place_of_its_own_in_the_order_of_the_run() -> None:
    rows = [record.row for number in range(4) for record in (step(number), evaluation(number))][1:]
    assert rows == sorted(set(rows))


def test_what_a_tracker_has_is_remembered_for_its_place_and_for_no_other(tmp_path: Path) -> None:
    file = tmp_path / "wandb.json"
    first = Identity(file, "team/project")
    assert first.run is None
    first.begins("abc")
    first.has(step(3))
    again = Identity(file, "team/project")
    assert again.run == "abc"
    assert [again.lacks(record) for record in (evaluation(2), step(3), evaluation(3), step(4))] == [False, False, True, True]
    assert Identity(file, "team/other").run is None


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"where": "p"}', '{"where": "p", "run": "a", "last_row": "x"}', "\udcff"])
def test_a_broken_file_is_one_that_is_not_there(tmp_path: Path, text: str) -> None:
    (tmp_path / "wandb.json").write_text(text, errors="surrogateescape")
    assert Identity(tmp_path / "wandb.json", "p").run is None


# A tracker that fails


class Faulty(Sink):
    """Fails as long as it is told to; keeps what it took."""

    def __init__(self) -> None:
        self.is_failing = threading.Event()
        self.took: list[object] = []
        self.tried = threading.Semaphore(0)

    def _try(self, what: object) -> None:
        self.tried.release()
        if self.is_failing.is_set():
            raise OSError("no route\nto \x1b[2Jhost")
        self.took.append(what)

    def go_back(self, step: int) -> None:
        self._try(step)

    def record(self, record: Record) -> None:
        self._try(record.row)

    def close(self) -> None:
        self._try("close")


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_what_a_failing_tracker_missed_it_gets_in_order_once_it_works_and_the_user_hears_of_both_once() -> None:
    sink, told = Faulty(), []
    in_background = BackgroundSink("W&B", lambda: sink, told.append)
    in_background.go_back(0)
    sink.tried.acquire(timeout=PATIENCE_S)
    sink.is_failing.set()
    for number in (1, 2, 3):
        in_background.record(step(number))
        assert sink.tried.acquire(timeout=PATIENCE_S)
    sink.is_failing.clear()
    in_background.record(step(4))
    closed([in_background])
    assert sink.took == [0, 2, 4, 6, 8, "close"]
    assert len(told) == 2
    assert told[0].startswith("W&B failed (OSError: no route); it is tried again later")
    assert told[1] == "W&B works again"


def test_a_failing_tracker_is_left_alone_for_a_while_and_tried_once_more_at_the_end() -> None:
    sink, told = Faulty(), []
    sink.is_failing.set()
    in_background = BackgroundSink("MLflow", lambda: sink, told.append)
    for number in range(100):
        in_background.record(step(number))
    closed([in_background])
    num_tries = 0
    while sink.tried.acquire(blocking=False):
        num_tries += 1
    assert num_tries == 2
    assert len(told) == 1


def test_a_tracker_that_cannot_even_be_opened_fails_like_any_other() -> None:
    told: list[str] = []

    def opened() -> Sink:
        raise RuntimeError

    in_background = BackgroundSink("W&B", opened, told.append)
    in_background.record(step(1))
    closed([in_background])
    assert len(told) == 1


def test_nobody_waits_for_a_tracker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread is let go; its process may end."""
    monkeypatch.setattr(background, "CLOSE_WITHIN_S", 0.05)
    told, released = [], threading.Event()

    def opened() -> Sink:
        released.wait(PATIENCE_S)
        return Faulty()

    in_background = [BackgroundSink(name, opened, told.append) for name in ("W&B", "MLflow")]
    for sink in in_background:
        sink.record(step(1))
    closed(in_background)
    assert ["has not taken everything" in sentence for sentence in told] == [True, True]
    assert all(sink._thread.daemon for sink in in_background)
    released.set()


def test_a_tracker_gets_at_the_start_what_was_recorded_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the run, numbers alone, and without what a kill cut off."""
    took: list[Record] = []

    class Listening(Faulty):
        def record(self, record: Record) -> None:
            took.append(record)

    monkeypatch.setattr(tracker, "Wandb", lambda *about: Listening())
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 1, "loss": 1.5}\n{"step": 2, "loss": NaN}\n{"step": 3, "lo')
    folder.evaluations.write_text('{"step": 0, "k": 4, "lift": 0.5, "attempts": [{"reward": 1.0}]}\n{"step": 1, "lift": 0.25}\n')
    config = Config(
        name="run",
        algorithm=SDPOConfig(),
        model=ModelConfig(name="fake", path="fake"),
        env=EnvConfig(name="fake"),
        tracking=TrackingConfig(tensorboard=False, wandb=WandbConfig(mode=WandbMode.offline)),
    )
    closed(tracker.trackers_of(config, folder, lambda sentence: None))
    assert [(record.step, record.is_evaluation) for record in took] == [(0, True), (1, False), (1, True), (2, False)]
    assert [record.metrics for record in took[:3]] == [{"lift": 0.5}, {"loss": 1.5}, {"lift": 0.25}]
    assert math.isnan(took[3].metrics["loss"])


# Missing clients


@pytest.mark.parametrize(
    ("tracking", "missing", "command"),
    [
        (TrackingConfig(wandb=WandbConfig(mode=WandbMode.offline)), {"wandb"}, 'pip install "sdpo[wandb]"'),
        (TrackingConfig(mlflow=MlflowConfig(enabled=True)), {"mlflow"}, 'pip install "sdpo[mlflow]"'),
        (TrackingConfig(mlflow=MlflowConfig(enabled=True)), {"sqlalchemy"}, 'pip install "sdpo[mlflow]"'),
    ],
)
def test_a_missing_client_is_refused_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, tracking: TrackingConfig, missing: set[str], command: str
) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in missing else object())
    with pytest.raises(UserError) as refusal:
        packages.refuse_missing(tracking)
    assert command in str(refusal.value)
    assert all(package in str(refusal.value) for package in missing)


def test_who_is_not_asked_for_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    packages.refuse_missing(TrackingConfig())
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("sqlalchemy", "alembic") else object())
    packages.refuse_missing(TrackingConfig(mlflow=MlflowConfig(enabled=True, uri="https://tracking.example")))


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "/tmp/mlruns", "ftp://x"])
def test_mlflows_file_store_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"tracking.mlflow.uri .* got '"):
        MlflowConfig(uri=uri)


@pytest.mark.parametrize("tags", [[""], ["a", "a"], ["x" * 65], ["two\nlines"]])
def test_tags_that_not_every_tracker_takes_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValueError, match=r"tracking.tags"):
        TrackingConfig(tags=tags)


@pytest.mark.parametrize("name", ["", "/", "..", "a//b", "a/../b", "\x1b[2J", "x" * 1000, "é", "a/./b", "\ud800", "/a"])
def test_no_name_is_too_odd_for_mlflow(name: str) -> None:
    given = as_name(name)
    assert 1 <= len(given) <= 250
    assert all(part not in ("", ".", "..") for part in given.split("/"))
    assert given.isascii()
    assert as_name(given) == given


def test_names_that_mlflow_takes_stay_as_they_are() -> None:
    from sdpo.metrics import METRICS

    assert [as_name(name) for name in METRICS] == list(METRICS)
