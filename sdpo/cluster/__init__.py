"""The machines of a run: where Ray runs on them, who gets which part of them, and what is said where one is missing."""

from sdpo.cluster.connection import beginning, connected
from sdpo.cluster.part import taking_part
from sdpo.cluster.seating import seating
from sdpo.cluster.shares import gpu_shares

__all__ = ["beginning", "connected", "gpu_shares", "seating", "taking_part"]
