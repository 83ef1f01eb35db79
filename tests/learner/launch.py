"""N ranks for a test: forked from a server that has imported DeepSpeed once, so that a launch costs a tenth of a second.

A rank that raises, dies or hangs ends the others, and the test with what it had to say.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from unittest import mock

import torch

from sdpo.learner.orders import Place

ROOT = Path(__file__).parent.parent.parent
T = TypeVar("T")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "deepspeed",
        "peft",
        "transformers.models.llama.modeling_llama",
        "deepspeed.runtime.zero.muon.muon_optimizer",
        "tests.learner.ranks",
    ]
)
_ARGUMENTS = "arguments"
# One thread a rank: the model is tiny. No GPU: gloo, also where there is one.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPlacement:
    """Where a rank finds the others."""

    rank: int
    num_ranks: int
    folder: Path
    """Of the launch: the same for all its ranks, and empty."""

    @property
    def place(self) -> Place:
        return Place(rank=self.rank, num_ranks=self.num_ranks, rendezvous=f"file://{self.folder}/meeting")


def launch(num_ranks: int, program: Callable[..., T], *arguments: object, timeout_s: float = 150.0) -> list[T]:
    """What ``program(placement, *arguments)`` returned on each rank: tensors, numbers, and dicts, lists and tuples of such."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.save(arguments, folder / _ARGUMENTS)  # not through the process: it would pass on a descriptor for every tensor
        placements = [ActorPlacement(rank=rank, num_ranks=num_ranks, folder=folder) for rank in range(num_ranks)]
        with mock.patch.dict(os.environ, _ENVIRONMENT):  # the server is started by the first process it is asked for
            processes = [_CONTEXT.Process(target=_rank, args=(placement, program)) for placement in placements]
            for process in processes:
                process.start()
        until = time.monotonic() + timeout_s
        try:
            while any(process.is_alive() for process in processes):
                if any(process.exitcode for process in processes) or time.monotonic() > until:
                    break
                time.sleep(0.01)
        finally:
            for process in processes:
                process.kill()
                process.join()
        codes = [process.exitcode for process in processes]
        logs = "".join(
            f"\n== rank {placement.rank}\n{(folder / f'log-{placement.rank}').read_text()[-6000:]}" for placement in placements
        )
        assert codes == [0] * num_ranks, f"ranks ended with {codes} (-9: another failed, or nothing came in {timeout_s} s){logs}"
        return [torch.load(folder / f"result-{placement.rank}", weights_only=False) for placement in placements]


def _rank(placement: ActorPlacement, program: Callable[..., object]) -> None:
    with (placement.folder / f"log-{placement.rank}").open("w", buffering=1) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        gc.freeze()  # DeepSpeed collects often, and the server has imported a lot
        torch.set_num_threads(1)
        try:
            arguments = torch.load(placement.folder / _ARGUMENTS, weights_only=False)
            torch.save(program(placement, *arguments), placement.folder / f"result-{placement.rank}")
        except BaseException:  # noqa: BLE001 - its last words, whatever they are
            traceback.print_exc(file=log)
            log.flush()
            os._exit(1)
        os._exit(0)  # without the farewells of gloo and DeepSpeed, which wait for the other ranks
