"""A password in an address stands nowhere but in the config object that the run uses."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from sdpo.cli import main
from sdpo.config import MlflowConfig
from sdpo.config.compose import saved_config, sweep_points, train_config
from sdpo.errors import UserError, without_credentials
from sdpo.kubernetes.names import Kind
from sdpo.kubernetes.render import rendered
from sdpo.run.folder import RunFolder, differing, plain
from sdpo.sweep import here, names, slurm
from sdpo.sweep.names import Point
from sdpo.tracking import tracker
from sdpo.tracking.background import BackgroundSink, closed
from sdpo.tracking.identity import Identity
from sdpo.tracking.sink import Record, Sink

SECRET = "hunter2"
ADDRESS = f"https://me:{SECRET}@tracking.example:5000/mlflow"
SHOWN = "https://tracking.example:5000/mlflow"
WORDS = ("tracking.mlflow.enabled=true", f"tracking.mlflow.uri='{ADDRESS}'", f"+env.options.rows='{ADDRESS}'", "name=a")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ADDRESS, SHOWN),
        (f"failed: {ADDRESS} and {ADDRESS}, says a@b.c", f"failed: {SHOWN} and {SHOWN}, says a@b.c"),
        ("https://hunter2@h", "https://h"),
        ("https://me:a@hunter2@h/x@y", "https://h/x@y"),
        ("postgresql+psycopg://me:hunt/er?2#@h:5432/db", "postgresql+psycopg://h:5432/db"),
        ("postgresql://h/db?user=me&password=hunter2&x=1", "postgresql://h/db?user=me&password=***&x=1"),
        ("https://h/x?access_token=hunter2", "https://h/x?access_token=***"),
        ("sqlite:////runs/a@b/mlflow.db", "sqlite:////runs/a@b/mlflow.db"),
        ("http://h:8080/users/@me", "http://h:8080/users/@me"),
        ("mysql://h:3306/db", "mysql://h:3306/db"),
        ("me@example.org?token=1", "me@example.org?token=1"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_who_logs_in_and_with_all_else(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_a_megabyte_of_half_addresses_is_read_in_seconds() -> None:
    """An error's text may quote a server's whole answer."""
    began = time.perf_counter()
    for text in ("://a:b" * 150_000, "?password" * 100_000 + "://", "://" + "a:@" * 300_000, "://" + "?" * 1_000_000):
        without_credentials(text)
    assert time.perf_counter() - began < 20.0


def test_the_run_has_the_address_as_it_was_given_and_its_folder_does_not(tmp_path: Path) -> None:
    """``config.yaml``, W&B, MLflow's parameters and ``--dry-run`` had the password."""
    config = train_config([*WORDS, f"runs_dir={tmp_path}"])
    assert config.tracking.mlflow.uri == ADDRESS
    assert config.env.options["rows"] == ADDRESS
    assert SECRET not in str(plain(config))
    assert plain(config)["tracking"]["mlflow"]["uri"] == SHOWN  # type: ignore[index]
    folder = RunFolder(tmp_path / "a")
    folder.claim(config)
    assert SECRET not in folder.config.read_text()
    assert saved_config(folder.config).tracking.mlflow.uri == SHOWN
    assert SECRET not in repr(config.tracking)


def test_a_run_of_an_older_version_continues_and_its_password_is_not_named(tmp_path: Path) -> None:
    config = train_config([*WORDS, f"runs_dir={tmp_path}"])
    kept = plain(config)
    kept["env"]["options"]["rows"] = ADDRESS.replace(SECRET, "an-old-one")  # type: ignore[index]
    assert differing(yaml.safe_load(yaml.safe_dump(kept)), config) == []


def test_trackers_are_told_of_a_config_without_it_and_reached_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Deaf(Sink):
        def go_back(self, step: int) -> None: ...

        def record(self, record: Record) -> None: ...

        def close(self) -> None: ...

    def opened(*about: object) -> Sink:
        given.extend(about)
        return Deaf()

    monkeypatch.setattr(tracker, "Mlflow", opened)
    config = train_config([*WORDS, "tracking.tensorboard=false", f"runs_dir={tmp_path}"])
    closed(tracker.trackers_of(config, RunFolder(tmp_path / "a"), lambda sentence: None))
    assert given[1] == ADDRESS
    assert SECRET not in str(given[2])


def test_a_client_that_quotes_the_address_it_failed_at_is_quoted_without_the_password() -> None:
    told: list[str] = []

    def opened() -> Sink:
        raise OSError(f"API request to {ADDRESS}/api/2.0 failed")

    closed([sink := BackgroundSink("MLflow", opened, told.append)])
    sink.wait(time.monotonic() + 20.0)
    assert told
    assert SHOWN in told[0]
    assert SECRET not in told[0]


def test_a_tracker_is_the_same_place_whoever_logs_in(tmp_path: Path) -> None:
    """A file of an older version holds the password; it is another one, and no new run, after the next record."""
    file = tmp_path / "mlflow.json"
    file.write_text(f'{{"where": "{ADDRESS} sdpo", "run": "abc", "last_row": 3}}')
    identity = Identity(file, f"{ADDRESS.replace(SECRET, 'new')} sdpo")
    assert identity.run == "abc"
    identity.has(Record(step=3, is_evaluation=False, metrics={}))
    assert SECRET not in file.read_text()
    assert SHOWN in file.read_text()


def test_an_address_that_is_refused_is_named_without_who_logs_in() -> None:
    for wrong in (f"me:{SECRET}@h:5000", f"ftp://me:{SECRET}@h"):
        with pytest.raises(ValueError, match=r"tracking\.mlflow\.uri must be a server's") as refused:
            MlflowConfig(uri=wrong)
        assert SECRET not in str(refused.value)


def test_a_sweep_is_shown_and_named_without_it_and_started_with_it() -> None:
    words = ("cluster=slurm", "runs_dir=/shared", *WORDS)
    point = Point(name="a", words=words)
    job = slurm.job(point, train_config(words), slurm.SlurmLauncherConfig())
    assert SECRET in job.script
    for shown in (here.shown(point), slurm.shown(job)):
        assert SECRET not in shown
        assert "tracking.example" in shown
    found = sweep_points([f"tracking.mlflow.uri='{ADDRESS}','{ADDRESS}2'"])
    for one in names.points(found, ["run", "run"]):
        assert SECRET not in one.name


def test_no_manifest_holds_a_password() -> None:
    with pytest.raises(UserError, match=r"a manifest holds no passwords.* tracking\.mlflow\.uri\. .*cluster\.secrets") as refused:
        rendered(["cluster=kubernetes", *WORDS], Kind.RayJob)
    assert SECRET not in str(refused.value)


def test_an_error_that_quotes_the_command_does_not_quote_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", f"tracking.mlflow.urri='{ADDRESS}'", "--dry-run"]) == 2
    assert main(["train", f"steps={ADDRESS},)(", "--dry-run"]) == 2
    assert main(["train", f"env.options={{a:{ADDRESS},)(", "--dry-run"]) == 2
    assert main([f"trian {ADDRESS}"]) == 2
    said = capsys.readouterr().err
    assert SECRET not in said
    assert "tracking" in said
