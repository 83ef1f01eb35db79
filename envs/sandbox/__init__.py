"""Running a program that nobody has read: ``run(program, stdin=..., limits=Limits(...)) -> Outcome``."""

from sdpo.envs.sandbox.isolation import Isolation, Settings
from sdpo.envs.sandbox.outcome import Ending, Limits, Outcome, SandboxUnavailable
from sdpo.envs.sandbox.pool import isolation, reasons_against, run, use

__all__ = [
    "Ending",
    "Isolation",
    "Limits",
    "Outcome",
    "SandboxUnavailable",
    "Settings",
    "isolation",
    "reasons_against",
    "run",
    "use",
]
