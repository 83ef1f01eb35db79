"""Which floating-point type does this machine multiply by itself?"""

from __future__ import annotations

from pathlib import Path

_GPUS = ("dev/nvidiactl", "dev/kfd")
_ABLE = frozenset({"avx512bw", "avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""A CPU with any of these flags; torch's products in bf16 are in software on x86 without AVX-512."""


def native_dtype(address: str | None, root: Path = Path("/")) -> str:
    """``bfloat16`` where this machine's GPUs or CPU multiply it; ``float32`` where its CPU would do so in software.

    Software takes seven times as long as fp32 does (measured: 8 against 54 Gflop/s on a core of a Zen 3). A cluster that is
    joined at ``address`` is not looked at and taken to be able. ``root``: the root of the file system that tells.
    """
    if address is not None or any((root / device).exists() for device in _GPUS):
        return "bfloat16"
    return "bfloat16" if _cpu_flags(root / "proc" / "cpuinfo") & _ABLE else "float32"


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """What the first core can do; nothing where the system does not say."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.is_file() else []
    named = [line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))]
    return frozenset(named[0].split()) if named else frozenset()
