"""The Triton rows say what the torch rows say, and their kernels compile: neither needs a GPU.

The head is the identity, so that hidden states are logits and their gradient is the one by the logits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sdpo.config import SupportConfig, SupportKind, TopSupport
from sdpo.objectives import triton_rows
from sdpo.objectives.comparison import Comparison
from sdpo.objectives.divergence import JensenShannon
from sdpo.objectives.fused import fused_loss
from sdpo.objectives.logits import Budget, Logits
from sdpo.objectives.scores import TokenScores

triton = pytest.importorskip("triton", reason="triton is not installed: it comes with torch for CUDA, not with torch for the CPU")

NUM_TOKENS, VOCABULARY = 6, 203
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")
launches = pytest.mark.skipif(
    not IS_INTERPRETED and not torch.cuda.is_available(),
    reason="no GPU: launched in the interpreter, by a test of this file",
)
STUDENT_1 = TopSupport(kind=SupportKind.student, num_ids=1, tail=True)
STUDENT_150 = TopSupport(kind=SupportKind.student, num_ids=150, tail=True)
TEACHER_7 = TopSupport(kind=SupportKind.teacher, num_ids=7, tail=True)
WITHOUT_TAIL = TopSupport(kind=SupportKind.student, num_ids=7, tail=False)


class Loss:
    """Asks for everything, with other weights for each token."""

    def __init__(self, *, has_entropy: bool, is_pointwise: bool = True) -> None:
        self.is_pointwise = is_pointwise
        self._has_entropy = has_entropy

    def __call__(self, scores: TokenScores, tokens: slice) -> Tensor:
        weights = torch.linspace(-1.0, 2.0, NUM_TOKENS, device=DEVICE)[tokens].to(scores.student_N.dtype)
        total = weights * (scores.divergence_N + 0.3 * scores.student_N)
        return total + 0.2 * scores.entropy_N if self._has_entropy else total


def logits(seed: int, *, gap: float) -> Tensor:
    """bf16 numbers; with a ``gap``, one token far above the others in the first row, the sampled one far below in the second."""
    logits_NV = 3 * torch.randn(NUM_TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(seed))
    logits_NV[0, 7] += gap
    logits_NV[1, sampled()[1]] -= gap
    logits_NV[2, :20] += gap
    return logits_NV.bfloat16().to(DEVICE)


def sampled() -> Tensor:
    return torch.tensor([3, 50, 202, 7, 0, 64], device=DEVICE)


def learn(
    dtype: torch.dtype, loss: Loss, support: SupportConfig | None, *, temperature: float, gap: float = 0.0
) -> dict[str, Tensor]:
    """Scores and the gradient by the logits, in two chunks of four and two tokens."""
    head_VV = torch.eye(VOCABULARY, dtype=dtype, device=DEVICE)
    logits_NV = logits(0, gap=gap).to(dtype).requires_grad_()
    halves = tuple(Logits(hidden_NH=logits(seed, gap=gap).to(dtype), head_VH=head_VV, weight=0.5) for seed in (1, 2))
    comparison = support and Comparison(teacher=halves, support=support, divergence=JensenShannon(0.3))
    chunk_mib = 4 * VOCABULARY * (8 if dtype == torch.float64 else 4) / 2**20
    budget = Budget(temperature=temperature, chunk_mib=chunk_mib)
    total, scores = fused_loss(logits_NV, head_VV, sampled(), loss, comparison=comparison, budget=budget)
    total.backward()
    assert logits_NV.grad is not None
    return {
        "student": scores.student_N,
        "entropy": scores.entropy_N,
        "teacher": scores.teacher_N,
        "divergence": scores.divergence_N,
        "gradient": logits_NV.grad,
    }


@pytest.fixture(params=[64, 4096], ids=["four blocks, the last not full", "one block, mostly empty"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_rows, "READ_BLOCK", request.param)
    monkeypatch.setattr(triton_rows, "WRITE_BLOCK", request.param)


def learn_twice(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """With the Triton rows, and with the torch rows."""
    found = []
    for is_triton in (True, False):
        monkeypatch.setattr(triton_rows, "can_run", lambda hidden_NH, is_triton=is_triton: is_triton)
        found.append(learn(*args, **kwargs))
    return found[0], found[1]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], *, of_gradient: float = 1e-6) -> None:
    """Scores to 1e-6, relative and in nats; each row of the gradient relative to the row."""
    for name in ("student", "entropy", "teacher", "divergence"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=1e-6)
    gradient_NV, expected_NV = found["gradient"].double(), expected["gradient"].double()
    off_N = (gradient_NV - expected_NV).norm(dim=-1) / expected_NV.norm(dim=-1)
    assert off_N.max() < of_gradient, off_N


@launches
@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("temperature", "gap"), [(1.0, 0.0), (0.7, 0.0), (0.7, 200.0)])
@pytest.mark.parametrize("has_entropy", [True, False])
@pytest.mark.parametrize("support", [None, STUDENT_1, STUDENT_150, TEACHER_7, WITHOUT_TAIL])
def test_scores_and_gradients_are_those_of_the_torch_rows(
    monkeypatch: pytest.MonkeyPatch, support: SupportConfig | None, has_entropy: bool, temperature: float, gap: float
) -> None:
    loss = Loss(has_entropy=has_entropy)
    found, expected = learn_twice(monkeypatch, torch.float32, loss, support, temperature=temperature, gap=gap)
    assert_same(found, expected)


@launches
@pytest.mark.parametrize("support", [None, STUDENT_150, TEACHER_7])
def test_a_bf16_gradient_is_that_of_the_torch_rows_to_its_last_bit(
    monkeypatch: pytest.MonkeyPatch, support: SupportConfig | None
) -> None:
    """The interpreter cuts off where a GPU rounds."""
    found, expected = learn_twice(monkeypatch, torch.bfloat16, Loss(has_entropy=True), support, temperature=0.7)
    assert found["gradient"].dtype == torch.bfloat16
    torch.testing.assert_close(found["gradient"], expected["gradient"], rtol=2**-7, atol=1e-30)
    assert_same(found, expected, of_gradient=2**-7)


@launches
@pytest.mark.parametrize("support", [None, STUDENT_1])
def test_a_second_walk_gives_the_gradient_of_the_torch_rows(
    monkeypatch: pytest.MonkeyPatch, support: SupportConfig | None
) -> None:
    loss = Loss(has_entropy=True, is_pointwise=False)
    found, expected = learn_twice(monkeypatch, torch.float32, loss, support, temperature=0.7)
    assert_same(found, expected)


def test_without_a_gpu_the_tests_of_this_file_hold_in_tritons_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported."""
    if IS_INTERPRETED:
        pytest.skip("this is that process")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_the_kernels_compile_for_a_gpu_that_is_not_there(
    capability: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The interpreter runs Python; the compiler refuses much of it. Annotations by ``Tensor`` were such a case."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"TEMPERATURE": 0.7, "HAS_ENTROPY": True, "BLOCK": 4096}
    types = {"logits": "*fp32", "found": "*fp32", "into": "*bf16", "ids": "*i64", "numbers": "*fp32", "vocabulary": "i32"}
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    for kernel, num_warps in ((triton_rows._read, triton_rows.READ_WARPS), (triton_rows._write, triton_rows.WRITE_WARPS)):
        jitted = triton.jit(kernel)
        constexprs = {name: value for name, value in constants.items() if name in jitted.arg_names}
        signature = {name: types.get(name, "constexpr") for name in jitted.arg_names}
        compiled = triton.compile(triton.compiler.ASTSource(jitted, signature, constexprs), target, {"num_warps": num_warps})
        assert compiled.asm["cubin"]
    assert "cvt.rn.bf16" in compiled.asm["ptx"], "the gradient is to be rounded to the nearest"
