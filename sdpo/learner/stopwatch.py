"""How long do the parts of an update take on this rank's device, and how much memory do they hold?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch


class Stopwatch:
    """Adds up seconds by name. On a GPU the work itself is timed, without waiting for it until the sums are asked for."""

    def __init__(self, device: torch.device) -> None:
        self._is_gpu = device.type == "cuda"
        self._seconds: dict[str, float] = {}
        self._pending: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """What is done in here counts as ``name``'s."""
        if self._is_gpu:
            first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            first.record()
            yield
            last.record()
            self._pending.append((name, first, last))
            return
        began = time.monotonic()
        yield
        self._add(name, time.monotonic() - began)

    def take(self) -> dict[str, float]:
        """The sums since they were last taken."""
        if self._pending:
            torch.cuda.synchronize()
        for name, first, last in self._pending:
            self._add(name, first.elapsed_time(last) / 1e3)
        self._pending.clear()
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, name: str, seconds: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds


def held_bytes(device: torch.device) -> int:
    """The most that this process has allocated on its GPU so far; on the CPU what it holds resident now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)
