"""What the user sees: a live view where there is a terminal, one line a step where there is none, tables at the end."""

from __future__ import annotations

from sdpo.terminal.live import Terminal
from sdpo.terminal.tables import alarm_line, before_and_after, sample_attempt
from sdpo.terminal.view import duration, sparkline

__all__ = ["Terminal", "alarm_line", "before_and_after", "duration", "sample_attempt", "sparkline"]
