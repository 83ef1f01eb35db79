"""`ray job submit` runs `sdpo train` on a Ray cluster, with this checkout's code and nothing else of it."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from sdpo.cluster.machine import free_ports
from tests.integration.conftest import Trainer

LAUNCH = Path(__file__).parent.parent.parent / "launch" / "ray"
MISSING = [name for name in ("aiohttp_cors", "colorful", "opencensus") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f'Ray jobs need {", ".join(MISSING)} (pip install "sdpo[jobs]")'),
]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
"""Of the cluster and of whoever submits to it."""


@pytest.fixture
def dashboard() -> Iterator[str]:
    """The address of a cluster of one node."""
    folder = tempfile.mkdtemp(prefix="ray-")  # its sockets' paths must be short
    port, dashboard, client, agent = free_ports("127.0.0.1", 4)
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *("--node-ip-address=127.0.0.1", "--include-dashboard=true", f"--dashboard-agent-listen-port={agent}"),
            *("--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}", f"--object-store-memory={300 * 2**20}"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=ENVIRONMENT,
    )
    try:
        assert head.stdout is not None
        for line in head.stdout:
            if "Ray runtime started" in line:
                break
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        head.terminate()
        head.communicate(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.full
def test_a_job_trains_with_the_checkouts_code(trainer: Trainer, dashboard: str) -> None:
    words = [
        word
        for word in trainer.words("num_steps=1", "evaluation.num_tasks=0")
        if not word.startswith(("runs_dir=", "cluster.address="))
    ]
    done = subprocess.run(
        [LAUNCH / "submit.sh", *words],
        env={**ENVIRONMENT, "RAY_ADDRESS": dashboard, "RUNS_DIR": str(trainer.runs)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + trainer.logs()
    assert [row["step"] for row in trainer.rows()] == [1]
    assert "succeeded" in done.stdout


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((LAUNCH / "cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_the_cluster_file_asks_for_a_token_and_opens_nothing_without_one() -> None:
    """Its dashboard, which runs whatever it is sent, listened at all addresses, and nothing asked for a token."""
    config = yaml.safe_load((LAUNCH / "cluster.yaml").read_text())
    starts = [one for role in ("head", "worker") for one in config[f"{role}_start_ray_commands"] if " start " in one]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in one for one in starts)
    assert not [one for one in starts if "0.0.0.0" in one or "::" in one]
    assert {"--dashboard-host=127.0.0.1", "AUTOSCALER_METRIC_PORT=-1", "DASHBOARD_METRIC_PORT=-1;"} <= set(starts[0].split())
    assert '{"enable_metrics_collection":false}' in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]
