"""The documentation's table of metrics is the code's."""

from __future__ import annotations

from pathlib import Path

from sdpo.metrics import METRICS

TABLE = Path(__file__).parent.parent / "docs" / "metrics.md"


def test_every_metric_is_documented_as_it_is_declared() -> None:
    rows = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [f"| `{name}` | {metric.unit} | {metric.meaning} |" for name, metric in METRICS.items()]
