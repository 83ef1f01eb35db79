"""What KubeRay is given: a manifest that its schema allows, that runs the very words of ``sdpo train``, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from sdpo.cli import main
from sdpo.config import Config, KubernetesConfig, TolerationConfig, TolerationOperator
from sdpo.config.compose import train_config
from sdpo.errors import UserError
from sdpo.kubernetes import pre_stop as pre_stop_module
from sdpo.kubernetes.manifests import manifest as described_run
from sdpo.kubernetes.manifests import refuse_pods
from sdpo.kubernetes.names import Kind, object_name
from sdpo.kubernetes.pods import head_template
from sdpo.kubernetes.pre_stop import is_at_work, is_loop, pre_stop
from sdpo.kubernetes.render import rendered, words_of_the_job
from tests.kubernetes.kuberay import SCHEMAS

ROOT = Path(__file__).parent.parent.parent
NODES = ("cluster=kubernetes", "cluster.image=registry.example/sdpo:gpu", "cluster.nodes=2", "cluster.gpus_per_node=4")
EVERYTHING = (
    *NODES,
    "cluster.namespace=research",
    "cluster.job_name=everything",
    "cluster.claim=shared.claim",
    "cluster.mount=/data/sdpo",
    "cluster.object_store_gib=40",
    "cluster.env={NCCL_DEBUG: INFO}",
    "cluster.env.WORDS=two words",
    "cluster.secrets=[hub-token,wandb]",
    "cluster.node_selector={cloud.google.com/gke-accelerator: nvidia-h100-80gb}",
    "cluster.tolerations=[{key: nvidia.com/gpu, effect: NoSchedule}, {key: team, operator: Equal, value: rl}]",
    "cluster.service_account=trainer",
    "cluster.retries=0",
    "cluster.ttl_s=60",
    "cluster.grace_s=900",
)


@cache
def text(*words: str, kind: Kind = Kind.RayJob) -> str:
    return rendered(words, kind)


def manifest(*words: str, kind: Kind = Kind.RayJob) -> Any:
    return yaml.safe_load(text(*words, kind=kind))


@cache
def composed() -> Config:
    return train_config(NODES)


def refusals(found: object, kind: Kind = Kind.RayJob) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMAS[kind.value])
    return [error.message for error in validator.iter_errors(found)]


def cluster_of(found: Any) -> Any:
    return found["spec"].get("rayClusterSpec", found["spec"])


def pods(found: Any) -> list[Any]:
    cluster = cluster_of(found)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("words", [NODES, EVERYTHING, (*NODES[:3], "cluster.gpus_per_node=0")], ids=["few", "all", "cpu"])
def test_what_is_rendered_is_what_kuberay_takes(words: tuple[str, ...], kind: Kind) -> None:
    assert refusals(manifest(*words, kind=kind), kind) == []


def spoiled(change: Callable[[Any], object]) -> Any:
    found = manifest(*EVERYTHING)
    change(found)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].pop("entrypoint"),
        lambda job: job["spec"].update(backofLimit=3),
        lambda job: job["spec"].update(ttlSecondsAfterFinished="60"),
        lambda job: job["spec"].update(submissionMode="httpmode"),
        lambda job: job["metadata"].update(name="Under_score"),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas=-1),
        lambda job: pods(job)[0]["containers"][0].update(command="ray start"),
        lambda job: pods(job)[1]["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": 4}),
        lambda job: pods(job)[1]["volumes"][1]["emptyDir"].update(medium="memory"),
        lambda job: pods(job)[1]["tolerations"][0].update(value="x"),
    ],
)
def test_the_schema_notices(change: Callable[[Any], object]) -> None:
    """Else it would prove nothing."""
    assert refusals(spoiled(change)) != []


EXAMPLES = {
    Kind.RayJob: (
        *NODES,
        "cluster.object_store_gib=40",
        "model=qwen3_8b",
        "learner=zero3",
        "rollout.num_engines=4",
        "name=qwen3",
    ),
    Kind.RayCluster: (*NODES, "cluster.object_store_gib=40", "cluster.job_name=sdpo"),
}


@pytest.mark.parametrize("kind", Kind)
def test_the_committed_manifests_are_what_the_command_renders(kind: Kind) -> None:
    folder = ROOT / "launch" / "kubernetes"
    words = [*EXAMPLES[kind], f"kind={kind.value}", f"to=launch/kubernetes/{kind.value.lower()}.yaml"]
    assert (folder / f"{kind.value.lower()}.yaml").read_text() == rendered(EXAMPLES[kind], kind)
    assert shlex.join(["sdpo", "launch", "render", *words]) in (folder / "README.md").read_text().replace(" \\\n    ", " ")


def test_nodes_are_replicas_and_gpus_are_limits() -> None:
    found = manifest(*NODES)
    (workers,) = cluster_of(found)["workerGroupSpecs"]
    assert (workers["replicas"], workers["minReplicas"], workers["maxReplicas"]) == (2, 2, 2)
    head, worker = (pod["containers"][0]["resources"] for pod in pods(found))
    assert worker["limits"]["nvidia.com/gpu"] == worker["requests"]["nvidia.com/gpu"] == "4"
    assert "nvidia.com/gpu" not in head["limits"]
    assert cluster_of(found)["rayVersion"] == version("ray")


@pytest.mark.parametrize("kind", Kind)
def test_every_pod_sees_the_same_storage_and_has_room_for_the_object_store(kind: Kind) -> None:
    found = manifest(*EVERYTHING, kind=kind)
    for pod in pods(found):
        (container,) = pod["containers"]
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert places == {"shared": "/data/sdpo", "shm": "/dev/shm"}
        volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
        assert volumes["shared"] == {"persistentVolumeClaim": {"claimName": "shared.claim"}}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert int(volumes["shm"]["emptyDir"]["sizeLimit"].removesuffix("Mi")) > 40 * 1024
        assert container["workingDir"] == "/data/sdpo"
        env = {entry["name"]: entry["value"] for entry in container["env"]}
        assert env["HF_HOME"].startswith("/data/sdpo/")
        assert env["SDPO_CACHE"].startswith("/data/sdpo/")
        assert pod["terminationGracePeriodSeconds"] == int(env["RAY_JOB_STOP_WAIT_TIME_S"]) == 900
    cluster = cluster_of(found)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"]["object-store-memory"] == str(40 * 2**30)


def test_the_job_runs_the_words_of_the_run_less_those_of_the_pods() -> None:
    words = [*EVERYTHING, "experiment=solve_livecodebench", "cluster.placement=separate", "++cluster.env.X=1", "name=a"]
    assert words_of_the_job(words) == [
        "cluster.nodes=2",
        "cluster.gpus_per_node=4",
        "cluster.object_store_gib=40",
        "experiment=solve_livecodebench",
        "cluster.placement=separate",
        "name=a",
        "cluster=ray",
        "cluster.address=auto",
    ]


def test_the_job_is_the_run_that_was_rendered() -> None:
    words = [*EVERYTHING, "model=qwen3_8b", "algorithm=grpo", "num_steps=7", "batch.group_size=4"]
    sdpo, train, *given = shlex.split(manifest(*words)["spec"]["entrypoint"])
    assert (sdpo, train) == ("sdpo", "train")
    here, there = train_config(words), train_config(given)
    assert there.cluster.address == "auto"
    assert (there.cluster.nodes, there.cluster.gpus_per_node) == (2, 4)
    here.cluster = there.cluster
    assert here == there


HOSTILE = (
    'a"b',
    "$(touch pwned)",
    "`touch pwned`",
    "a; touch pwned",
    "two\nlines: {x: y}",
    "# no\n- comment",
    "ünï \u2028 ☃",
    "'",
    "$$HOME",
    "\\",
)


@pytest.fixture
def argv(tmp_path: Path) -> Callable[[str], list[str]]:
    """What a program called sdpo is given when the shell runs an entrypoint, as Ray has it run."""
    script = tmp_path / "sdpo"
    script.write_text(f"#!{sys.executable} -IS\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    script.chmod(0o700)

    def run(entrypoint: str) -> list[str]:
        path = {"PATH": f"{tmp_path}:/bin:/usr/bin"}
        ran = subprocess.run(entrypoint, shell=True, cwd=tmp_path, env=path, capture_output=True, text=True, check=True)
        assert [file.name for file in tmp_path.iterdir()] == ["sdpo"]
        words: list[str] = json.loads(ran.stdout)
        return words

    return run


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_word_stays_one_word(word: str, argv: Callable[[str], list[str]]) -> None:
    """Through YAML, and through the shell with which Ray runs the entrypoint."""
    described = yaml.safe_dump(described_run(composed(), ["sdpo", "train", word, "end"], Kind.RayJob), allow_unicode=True)
    found = yaml.safe_load(described)
    assert refusals(found) == []
    assert argv(found["spec"]["entrypoint"]) == ["train", word, "end"]


def test_a_hostile_name_of_a_run_arrives(argv: Callable[[str], list[str]]) -> None:
    name = "; ".join(word for word in HOSTILE[:-1] if word.isprintable())  # others are refused
    escaped = name.replace("'", "\\'")
    found = manifest(*NODES, "cluster.job_name=fine", f"name='{escaped}'")
    assert refusals(found) == []
    assert train_config(argv(found["spec"]["entrypoint"])[1:]).name == name


@pytest.mark.parametrize("value", [*HOSTILE, "$(HOME)", "$$(HOME)", "yes", "0x10", "null", ""])
def test_a_variables_value_arrives_as_it_was_given(value: str) -> None:
    described = yaml.safe_dump(head_template(KubernetesConfig(image="a", env={"GIVEN": value})), allow_unicode=True)
    (container,) = yaml.safe_load(described)["spec"]["containers"]
    (written,) = [entry["value"] for entry in container["env"] if entry["name"] == "GIVEN"]
    assert written.replace("$$", "$") == value
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", written)  # which Kubernetes would expand


@pytest.mark.parametrize(
    ("run", "given", "name"),
    [
        ("code-sdpo-smollm2_135m-s0", None, "code-sdpo-smollm2-135m-s0"),
        ("First Try.2", None, "first-try-2"),
        ("$(x)", "fine", "fine"),
    ],
)
def test_names_are_those_of_the_run(run: str, given: str | None, name: str) -> None:
    assert object_name(run, given, Kind.RayJob) == name


@pytest.mark.parametrize("run", ["", "9lives", "-a", "a-", "_a", "a_", "straße", "a/b", "a\n", "$(x)", "a" * 48, "名前"])
def test_a_name_that_kubernetes_refuses_is_refused_with_a_way_out(run: str) -> None:
    with pytest.raises(UserError, match=r"letter first.*cluster\.job_name="):
        object_name(run, None, Kind.RayJob)
    with pytest.raises(UserError, match=r"cluster\.job_name is "):
        object_name("fine", run or "A", Kind.RayJob)


def test_a_cluster_may_have_the_longer_name() -> None:
    assert object_name("a" * 53, None, Kind.RayCluster) == "a" * 53
    with pytest.raises(UserError, match="53"):
        object_name("a" * 54, None, Kind.RayCluster)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["model=qwen3_8b"], "needs cluster=kubernetes"),
        (["cluster=kubernetes"], r"cluster\.image must be given"),
        ([*NODES[:3]], r"cluster\.gpus_per_node must be given"),
        ([*NODES, "runs_dir=/tmp/runs"], "runs_dir must lie on the storage that every pod sees"),
        ([*NODES, "runs_dir=../runs"], "runs_dir must lie on the storage"),
        ([*NODES, "cluster.tolerations=[{key: a, effect: Never}]"], "Never"),
        ([*NODES, "cluster.nonsense=1"], r"'cluster\.nonsense' does not"),
        ([*NODES, "--dry-run"], "takes keys of sdpo train"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], rule: str) -> None:
    with pytest.raises(UserError, match=rule):
        rendered(words, Kind.RayJob)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image": "a b"}, "cluster.image must be an image"),
        ({"image": "a\nb"}, "cluster.image must be an image"),
        ({"image": ""}, "cluster.image must be an image"),
        ({"namespace": "Under_score"}, "cluster.namespace must be a DNS-1123 label"),
        ({"namespace": "a\n"}, "cluster.namespace must be a DNS-1123 label"),
        ({"claim": "-a"}, "cluster.claim must be a DNS-1123 subdomain"),
        ({"claim": "a" * 254}, "cluster.claim must be a DNS-1123 subdomain"),
        ({"service_account": "A"}, "cluster.service_account must be a DNS-1123"),
        ({"secrets": ["ok", "NOT"]}, "cluster.secrets must be names of secrets"),
        ({"mount": "relative"}, "cluster.mount must be an absolute path"),
        ({"mount": "/a/../b"}, "cluster.mount must be an absolute path"),
        ({"mount": "/a:b"}, "cluster.mount must be an absolute path"),
        ({"mount": "/"}, "cluster.mount must be an absolute path"),
        ({"env": {"1A": "b"}}, "cluster.env must be names of environment variables"),
        ({"env": {"A=B": "b"}}, "cluster.env must be names of environment variables"),
        ({"node_selector": {"a b": "c"}}, "cluster.node_selector must be labels"),
        ({"node_selector": {"a": "c d"}}, "cluster.node_selector.a must be a label's value"),
        ({"object_store_gib": 200.0}, "cluster.memory_gib_per_node must exceed shared memory"),
        ({"object_store_gib": 60.0}, "cluster.head_memory_gib must exceed shared memory"),
        ({"object_store_gib": 0.0}, "cluster.object_store_gib must be positive"),
        ({"grace_s": 0}, "cluster.grace_s must be at least 1"),
        ({"retries": -1}, "cluster.retries must be at least 0"),
    ],
)
def test_pods_that_kubernetes_would_refuse_are_refused_at_once(change: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        KubernetesConfig(**{"image": "a", **change})


@pytest.mark.parametrize("change", [{"operator": TolerationOperator.Equal}, {"value": "x"}, {"key": "a b"}])
def test_a_toleration_makes_sense(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cluster\.tolerations"):
        TolerationConfig(**{"key": "a", **change})


def test_the_command_writes_a_file_or_to_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "deep" / "job.yaml"
    assert main(["launch", "render", *NODES, f"to={file}", "kind=RayCluster"]) == 0
    assert "kubectl apply -f" in capsys.readouterr().out
    assert main(["launch", "render", *NODES, "kind=RayCluster"]) == 0
    assert capsys.readouterr().out == file.read_text() == rendered(NODES, Kind.RayCluster)
    assert [entry.name for entry in file.parent.iterdir()] == ["job.yaml"]
    assert main(["launch", "render", *NODES, "kind=Pod"]) == 2
    assert main(["launch", "render", *NODES, f"to={file}/below"]) == 2
    assert "to= must be a file that can be written" in " ".join(capsys.readouterr().err.split())


def test_pods_are_no_cluster_to_train_on_from_here() -> None:
    with pytest.raises(UserError, match=r"cluster=kubernetes describes pods.*cluster=ray"):
        refuse_pods(composed())
    refuse_pods(train_config([*NODES, "dry_run=true"]))
    refuse_pods(train_config(["cluster=ray"]))


def test_the_image_is_built_from_what_is_there() -> None:
    lines = (ROOT / "launch" / "kubernetes" / "Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", lines, re.MULTILINE) for word in line.split()]
    assert "sdpo" in copied
    assert [word for word in copied if not (ROOT / word).exists()] == []
    pins = re.findall(r'"(torch|ray)(?:\[default\])?==([0-9.]+)"', lines)
    declared = (ROOT / "pyproject.toml").read_text()
    assert len(pins) == 3
    assert [pin for pin in pins if f'"{pin[0]}=={pin[1]}"' not in declared] == []


# Before a pod ends.

LOOP = """
import pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
pathlib.Path(sys.argv[2]).with_name("ready").touch()
while not asked:
    time.sleep(0.01)
time.sleep(0.3)
pathlib.Path(sys.argv[2]).write_text(f"after {len(asked)} signal")
"""


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A program called sdpo that writes a checkpoint when it is asked to end, and takes its time."""
    script, checkpoint = tmp_path / "sdpo", tmp_path / "checkpoint"
    script.write_text(LOOP)
    process = subprocess.Popen([sys.executable, str(script), "train", str(checkpoint)])
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    yield process, checkpoint
    process.kill()
    process.wait()


def test_a_pod_ends_after_the_checkpoint(loop: tuple[subprocess.Popen[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    process, checkpoint = loop
    monkeypatch.setattr(pre_stop_module, "POLL_S", 0.01)
    assert not checkpoint.exists()
    pre_stop(lambda: [psutil.Process(process.pid)] if process.poll() is None else [])
    assert checkpoint.read_text() == "after 1 signal"


@pytest.mark.parametrize(
    ("words", "loop", "work"),
    [
        (["/usr/bin/python3", "/opt/venv/bin/sdpo", "train", "name=a"], True, False),
        (["/bin/sh", "-c", "sdpo train name=a"], False, False),
        (["python", "sdpo", "launch", "render"], False, False),
        (["ray::IDLE"], False, False),
        (["ray::JobSupervisor"], False, False),
        (["ray::RankActor.update"], False, True),
        (["/usr/bin/raylet", "--ray::x"], False, False),
        ([], False, False),
        ([""], False, False),
    ],
)
def test_who_is_waited_for(words: list[str], loop: bool, work: bool) -> None:
    assert (is_loop(words), is_at_work(words)) == (loop, work)


def test_the_farewell_runs_in_pods_alone() -> None:
    """Anywhere else it would end whatever the user trains."""
    ran = subprocess.run(
        [sys.executable, "-m", "sdpo.kubernetes.pre_stop"], env={"PATH": "/bin"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "runs in a pod of Kubernetes alone" in ran.stderr
