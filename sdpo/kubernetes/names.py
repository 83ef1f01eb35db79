"""What is a run called in Kubernetes?

A RayJob's name must be a DNS-1035 label (DNS-1123 that begins with a letter) of at most 47 characters, a RayCluster's of at most
53. KubeRay appends to them, and the whole must fit into a label of 63 (KubeRay v1.6, ``ValidateRayJobMetadata``).
"""

from __future__ import annotations

import re
from enum import Enum

from sdpo.errors import UserError

_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_HYPHENS = str.maketrans("_. ", "---")


class Kind(Enum):
    """What is rendered, by KubeRay's name."""

    RayJob = "RayJob"
    """A cluster that trains one run, and goes."""
    RayCluster = "RayCluster"
    """A cluster that stays until it is deleted."""

    @property
    def max_name(self) -> int:
        """The most characters of its name."""
        return 47 if self is Kind.RayJob else 53


def object_name(run: str, given: str | None, kind: Kind) -> str:
    """``given`` as it is, or the run's name in lower case, with hyphens for underscores, dots and spaces.

    Raises UserError where that is no name for ``kind``.
    """
    name = run.lower().translate(_HYPHENS) if given is None else given
    if _LABEL.fullmatch(name) and len(name) <= kind.max_name:
        return name
    key, found = ("the run's name", run) if given is None else ("cluster.job_name", given)
    raise UserError(
        f"a {kind.value} must be called by at most {kind.max_name} lower-case letters, digits and hyphens, a letter first and no "
        f"hyphen last; {key} is {found!r}, of {len(found)} characters. Set cluster.job_name=, as in cluster.job_name=chemistry-1."
    )
