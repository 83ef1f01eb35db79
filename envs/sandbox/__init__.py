"""Running a program that nobody has read: ``run(program, stdin=..., limits=Limits(...)) -> Outcome``."""

from sdpo.envs.sandbox.process import Ending, Limits, Outcome, SandboxUnavailable, run

__all__ = ["Ending", "Limits", "Outcome", "SandboxUnavailable", "run"]
