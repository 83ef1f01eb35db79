"""The trackers' own clients, read back: every step once, under the names it has everywhere, whatever the run goes through."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sdpo.config import MlflowConfig, WandbConfig, WandbMode
from sdpo.tracking.mlflow import Mlflow, as_name
from sdpo.tracking.sink import About, Record, Sink
from sdpo.tracking.tensorboard import TensorBoard
from sdpo.tracking.wandb import Wandb

pytestmark = pytest.mark.integration
ABOUT = About(
    name="run-1",
    tags=["baseline", "seed 7"],
    config={"seed": 7, "algorithm": {"name": "sdpo"}, "env": {"é[": [1, None]}},
)
ODD = "env/\u00fc ]\u202e/../x"
MANY = {f"env/{index}": 1.0 for index in range(1200)}
"""More than MLflow takes in a call."""


def step(number: int, **metrics: float) -> Record:
    found = {"loss": number / 2, "loss/distillation": 0.25, "alarms": 0.0, **metrics}
    return Record(step=number, is_evaluation=False, metrics=found)


def evaluated(number: int) -> Record:
    return Record(step=number, is_evaluation=True, metrics={"heldout/success": number / 10, "alarms": 1.0})


def through_a_kill(folder: Path, opened: Callable[[Path], Sink]) -> None:
    """Two processes: the second goes on from a checkpoint after step 1, so steps 2 and 3 come twice, the second time changed."""
    first = opened(folder)
    first.go_back(0)
    for record in (evaluated(0), step(1, **{ODD: 1.5}, **MANY), step(2), step(3, grad_norm=math.nan)):
        first.record(record)
    first.close()
    second = opened(folder)
    second.go_back(1)
    for record in (step(2, loss=99.0), step(3, loss=99.0), evaluated(3), step(4, grad_norm=math.inf)):
        second.record(record)
    second.close()


ONCE = {"loss": [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)], "heldout/success": [(0, 0.0), (3, 0.3)]}


def test_tensorboard_shows_what_came_last(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    through_a_kill(tmp_path, TensorBoard)
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, 0.5), (2, 99.0), (3, 99.0), (4, 2.0)]
    assert found.Scalars(ODD)[0].value == 1.5


def test_wandb_has_every_step_once_in_one_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("wandb") is None:
        pytest.skip('needs the W&B client: pip install "sdpo[wandb]"')
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    config = WandbConfig(mode=WandbMode.offline, project="tests")
    through_a_kill(tmp_path, lambda folder: Wandb(config, ABOUT, folder, folder / "wandb.json"))
    written = wandb_files(tmp_path)
    assert len(written) == 2
    runs = [next(record.run for record in file if record.HasField("run")) for file in written]
    assert {run.run_id for run in runs} == {json.loads((tmp_path / "wandb.json").read_text())["run"]}
    assert {(run.display_name, run.project, tuple(run.tags)) for run in runs} == {("run-1", "tests", ("baseline", "seed 7"))}
    assert {item.key: json.loads(item.value_json) for item in runs[0].config.update if item.key != "_wandb"} == ABOUT.config
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for file in written
        for record in file
        if record.HasField("history")
    ]
    assert {name: [(row["step"], row[name]) for row in rows if name in row] for name in ONCE} == ONCE
    own_steps = [row["_step"] for row in rows]
    assert own_steps == sorted(set(own_steps)), "W&B's step must grow, from one file to the next too"
    assert [row[ODD] for row in rows if ODD in row] == [1.5]


def wandb_files(folder: Path) -> list[list[Any]]:
    """The records of each file. The client's own process may write the last of them after ``finish`` has returned."""
    until = time.monotonic() + 60.0
    while True:
        written = [list(wandb_records(file)) for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]
        if all(any(record.HasField("exit") for record in file) for file in written) or time.monotonic() > until:
            return written
        time.sleep(0.2)


def wandb_records(file: Path) -> Iterator[Any]:
    """Of an offline run: after a head of 7 bytes LevelDB's log format, blocks of 32 KiB whose pieces have a checksum (4 bytes),
    a length (2) and a kind (1: whole, 2: first, 3: middle, 4: last); each record is a message of the client's own protocol."""
    from wandb.proto.wandb_internal_pb2 import Record as Message

    written, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(written):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(written[at + 4 : at + 6], "little"), written[at + 6]
        whole += written[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Message.FromString(whole)
            whole = b""


def test_mlflow_has_every_step_once_in_one_run_of_a_database(tmp_path: Path) -> None:
    if find_spec("mlflow") is None or find_spec("sqlalchemy") is None:
        pytest.skip('needs the MLflow client and a database: pip install "sdpo[mlflow]"')
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = MlflowConfig(enabled=True, experiment="tests")
    through_a_kill(tmp_path, lambda folder: Mlflow(config, uri, ABOUT, folder / "mlflow.json"))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / "mlflow.json").read_text())["run"]
    assert (run.info.run_name, run.info.status) == ("run-1", "FINISHED")
    assert run.data.params == {"seed": "7", "algorithm.name": "sdpo", "env.__": "[1, None]"}
    assert {"baseline", "seed 7"} <= run.data.tags.keys()
    for name, expected in ONCE.items():
        assert [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)] == expected
    assert run.data.metrics["loss/distillation"] == 0.25
    assert run.data.metrics[as_name(ODD)] == 1.5
    assert math.isnan(client.get_metric_history(run.info.run_id, "grad_norm")[0].value)


def test_wandb_keeps_no_password_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client records the words of the command, the address of another tracker among them."""
    if find_spec("wandb") is None:
        pytest.skip('needs the W&B client: pip install "sdpo[wandb]"')
    monkeypatch.setattr("sys.argv", ["sdpo", "train", "tracking.mlflow.uri=https://me:hunter2@tracking.example"])
    sink = Wandb(WandbConfig(mode=WandbMode.offline), ABOUT, tmp_path, tmp_path / "wandb.json")
    sink.go_back(0)
    sink.record(step(1))
    sink.close()
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files)
    assert not [file for file in files if b"hunter2" in file.read_bytes()]
