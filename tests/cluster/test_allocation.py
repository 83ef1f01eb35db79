"""What Slurm says of a job, and what a node of it gives Ray."""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

from sdpo.cluster import authentication, connection, machine, part
from sdpo.cluster.allocation import Allocation, expanded, of_slurm
from sdpo.cluster.meeting import Meeting
from sdpo.cluster.ray_node import NodeSpec, command
from sdpo.config import AllocationKind, ClusterConfig
from sdpo.errors import MachineError, UserError

STEP = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize(
    ("nodelist", "names"),
    [
        ("login", ["login"]),
        ("gpu[01-03,7],login", ["gpu01", "gpu02", "gpu03", "gpu7", "login"]),
        ("gpu[098-101]", ["gpu098", "gpu099", "gpu100", "gpu101"]),
        ("rack[1-2]node[1-2]", ["rack1node1", "rack1node2", "rack2node1", "rack2node2"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("a[1-2]-ib,b", ["a1-ib", "a2-ib", "b"]),
    ],
)
def test_slurms_lists_are_expanded_as_scontrol_does(nodelist: str, names: list[str]) -> None:
    assert list(expanded(nodelist)) == names


@pytest.mark.parametrize(
    "nodelist", ["", ",", "a[", "a[]", "a[1-]", "a[x]", "a[1-99999999]", "a b", "a;rm -rf", "a\x1b[31m", "[" * 100_000, "a[1]]"]
)
def test_what_is_no_list_of_nodes_is_refused(nodelist: str) -> None:
    with pytest.raises(UserError, match="list of nodes"):
        expanded(nodelist)


@given(st.text(max_size=60))
def test_no_text_breaks_the_expansion_but_with_a_sentence(nodelist: str) -> None:
    with suppress(UserError):
        assert all(expanded(nodelist))


def test_a_node_knows_its_place() -> None:
    found = of_slurm(STEP, num_nodes=2)
    assert (found.name, found.first, found.is_first, found.job) == ("gpu02", "gpu01", False, "1234-0-0")
    assert of_slurm({**STEP, "SLURM_NODEID": "0", "SLURM_RESTART_COUNT": "2"}, num_nodes=2).job == "1234-2-0"


@pytest.mark.parametrize(
    ("environment", "num_nodes", "rule"),
    [
        ({}, 1, "belongs to none"),
        (STEP, 4, r"Set cluster\.nodes=2"),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "8"}, 2, "--ntasks-per-node=1"),
        ({"SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NODEID": "0"}, 2, "srun"),
    ],
)
def test_a_job_that_would_not_work_is_refused_with_what_to_do(environment: dict[str, str], num_nodes: int, rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        of_slurm(environment, num_nodes=num_nodes)


def test_two_jobs_on_one_node_share_no_folder_and_rays_sockets_stay_short_enough(tmp_path: Path) -> None:
    deep = tmp_path / "a-long-name" / "a-long-name" / "a-long-name" / "a-long-name"
    deep.mkdir(parents=True)
    asked = [("1-0", Path("/tmp")), ("1-1", Path("/tmp")), ("2147483647-12-3-4095", Path("/tmp")), ("1-0", deep)]
    with ExitStack() as made:
        folders = [made.enter_context(machine.temporary_folder(name, base)).path for name, base in asked]
    assert len(set(folders)) == len(folders)
    for folder in folders:
        assert len(f"{folder}/session_2026-11-28_19-20-28_123456_1234567/sockets/plasma_store.9".encode()) <= 107


def test_ports_that_are_given_out_together_differ() -> None:
    assert len(set(machine.free_ports("127.0.0.1", 20))) == 20


def test_the_object_store_is_what_was_asked_for_or_this_machines_share_within_its_shared_memory() -> None:
    gib = 2**30
    assert machine.sized(0.5, memory=100 * gib, shared=0) == gib // 2
    assert machine.sized(None, memory=100 * gib, shared=50 * gib) == 30 * gib
    assert machine.sized(None, memory=100 * gib, shared=10 * gib) == 9 * gib
    with pytest.raises(UserError, match=r"cluster\.object_store_gib"):
        machine.sized(None, memory=100 * gib, shared=2**20)


def test_the_address_is_that_of_the_interface_and_an_unknown_one_is_refused_with_those_there_are() -> None:
    assert machine.address("lo", None) == "127.0.0.1"
    assert machine.address(None, "127.0.0.1") == "127.0.0.1"
    assert machine.address(None, "no-such-name.invalid")
    with pytest.raises(UserError, match=r"'ib7', it has .*lo"):
        machine.address("ib7", None)


def test_a_node_is_started_with_what_it_was_given_and_only_the_head_with_a_port() -> None:
    spec = NodeSpec(
        name="n2",
        address="10.0.0.2",
        job="1-0-0-1",
        object_store_bytes=5,
        spill_dir=None,
        num_cpus=3,
        num_gpus=None,
        token="secret",
    )
    joining = command(spec, Path("/tmp/x"), join="10.0.0.1:99", ports=[1, 2, 3])
    assert {"--address=10.0.0.1:99", "--node-ip-address=10.0.0.2", "--node-name=n2", "--num-cpus=3", "--temp-dir=/tmp/x"} <= set(
        joining
    )
    assert not [word for word in joining if word.startswith(("--head", "--port", "--num-gpus", "--object-spilling"))]
    assert {"--head", "--port=1", "--dashboard-agent-listen-port=3"} <= set(
        command(spec, Path("/tmp/x"), join=None, ports=[1, 2, 3])
    )
    assert "secret" not in " ".join([*joining, repr(spec)])  # everybody on the machine sees what processes were started with


def test_a_head_serves_no_metrics_and_no_dashboard() -> None:
    """Metrics were served at all addresses, and ask for no token."""
    spec = NodeSpec(
        name="n1", address="10.0.0.1", job="1-0-0-0", object_store_bytes=5, spill_dir=None, num_cpus=1, num_gpus=0, token="secret"
    )
    words = command(spec, Path("/tmp/x"), join=None, ports=[1, 2, 3])
    assert "--include-dashboard=false" in words
    (settings,) = [json.loads(word.partition("=")[2]) for word in words if word.startswith("--system-config=")]
    assert settings["enable_metrics_collection"] is False


def test_nobody_can_lay_rays_folder_ready(tmp_path: Path) -> None:
    """/tmp/sdpo-JOB-NODE was taken whoever had made it: another user's, open to all, or a link into somebody's home."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("sdpo-1-0-0-0", "sdpo-1-0-0-0-"):
        (tmp_path / name).symlink_to(home)
    with machine.temporary_folder("1-0-0-0", tmp_path) as one, machine.temporary_folder("1-0-0-0", tmp_path) as two:
        for made in (one, two):
            assert not made.path.is_symlink()
            assert made.path.stat().st_uid == os.geteuid()
            assert made.path.stat().st_mode & 0o777 == 0o700
        assert one.path != two.path
    assert list(home.iterdir()) == []


def test_a_token_is_drawn_and_sent_unless_the_user_has_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    before = dict(os.environ)
    token = authentication.new_token()
    assert token is not None
    assert token != authentication.new_token()
    with authentication.sending(token):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert os.environ["RAY_AUTH_TOKEN"] == token
        assert AuthenticationTokenLoader.instance().has_token()
    assert dict(os.environ) == before
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert authentication.new_token() is None
    with authentication.sending(None):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"nodes": 2}, "cluster=slurm"),
        ({"nodes": 0}, r"cluster\.nodes"),
        ({"allocation": AllocationKind.slurm, "address": "auto"}, r"cluster\.address must be null"),
        ({"cpus_per_node": 0}, r"cluster\.cpus_per_node"),
        ({"gpus_per_node": -1}, r"cluster\.gpus_per_node"),
        ({"object_store_gib": 0.0}, r"cluster\.object_store_gib"),
        ({"start_timeout_s": float("nan")}, r"cluster\.start_timeout_s"),
    ],
)
def test_a_senseless_cluster_is_refused(settings: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        ClusterConfig(**settings)  # type: ignore[arg-type]


TWO = Allocation(job="7-0-0", nodes=("n1", "n2"), index=1)


def lend(folder: Path, start_timeout_s: float) -> list[str]:
    said: list[str] = []
    config = ClusterConfig(allocation=AllocationKind.slurm, nodes=2, start_timeout_s=start_timeout_s)
    part.lend(config, TWO, Meeting(folder / "meeting"), folder, said.append)
    return said


def test_a_driver_that_never_begins_is_named_and_not_waited_for_without_end(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"the driver on node n1 has not begun: node n2 .*runs_dir must be on a file system"):
        lend(tmp_path, 0.01)
    assert "n2" in Meeting(tmp_path / "meeting").failures() or not (tmp_path / "meeting").exists()


def test_a_driver_that_died_without_a_word_is_named(tmp_path: Path) -> None:
    (tmp_path / "meeting").mkdir()
    (tmp_path / "meeting" / "driver.json").write_text('{"node": "n1", "beat": 5, "address": null, "ended": null}')
    with pytest.raises(MachineError, match="the driver on node n1 is gone"):
        lend(tmp_path, 0.5)
    assert "n1 is gone" in Meeting(tmp_path / "meeting").failures()["n2"]


def test_a_node_leaves_when_the_run_is_over_also_where_that_failed_before_it_began(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path / "meeting")
    with pytest.raises(UserError), meeting.held("n1"):
        raise UserError("env.name must be an environment")
    assert lend(tmp_path, 60.0) == ["node n2: the run on n1 is over (UserError: env.name must be an environment)"]


def test_what_lies_half_written_or_is_foreign_in_the_meeting_is_nothing(tmp_path: Path) -> None:
    meeting = Meeting(tmp_path)
    for text in ("", "{", "[]", '{"node": 1, "who": 2}', "\x00" * 100):
        (tmp_path / "driver.json").write_text(text)
        (tmp_path / "failed-n2.json").write_text(text)
        assert meeting.read() is None
        assert meeting.failures() == {}


def test_the_driver_is_heard_of_as_long_as_it_holds_the_meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdpo.cluster.meeting.BEAT_S", 0.01)
    meeting, counted = Meeting(tmp_path), threading.Event()
    with meeting.held("n1"):
        Meeting(tmp_path).announce("10.0.0.1:99", "a token")  # whoever brought up Ray holds no meeting
        first = meeting.read()
        assert first is not None
        for _ in range(500):
            later = meeting.read()
            if later is not None and later.beat > first.beat:
                break
            counted.wait(0.01)
        assert later is not None
        assert (later.address, later.token, later.ended) == ("10.0.0.1:99", "a token", None)
        assert "a token" not in repr(later)
        assert later.beat > first.beat
    last = meeting.read()
    assert last is not None
    assert last.ended == "it ended"


def test_nodes_that_never_join_and_nodes_that_cannot_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.ray, "nodes", lambda: [{"NodeName": "n1", "Alive": True}, {"NodeName": "n3", "Alive": False}])
    with pytest.raises(MachineError, match=r"n2, n3 did not"):
        connection._wait_for_names(("n1", "n2", "n3"), dict, 0.0)
    with pytest.raises(MachineError, match=r"node n2 cannot take part: no interface"):
        connection._wait_for_names(("n1", "n2"), lambda: {"n2": "no interface"}, 60.0)
