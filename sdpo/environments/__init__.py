"""The tools of an environment's author, ``sdpo envs list | show | sample | check | new``; ``check`` also serves tests."""

from sdpo.environments.findings import Finding, Inspection, Severity
from sdpo.environments.inspection import check

__all__ = ["Finding", "Inspection", "Severity", "check"]
