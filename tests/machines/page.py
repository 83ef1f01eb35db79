"""The example of docs/python.md as a user runs it, in a process of its own, on a tiny model; then what else is asked of it.

python -m tests.machines.page FOLDER    # the last line is what came of it, as JSON
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from pathlib import Path

from safetensors.torch import load_file

import sdpo
from tests.letters import Hopeless
from tests.tiny import write_tiny_model

PAGE = Path(__file__).parent.parent.parent / "docs" / "python.md"


def example() -> str:
    """The page's first block of Python."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def main(folder: Path) -> None:
    """Run all of it in ``folder``."""
    os.chdir(folder)
    model = write_tiny_model(Path("model"))
    Path("example.py").write_text(example().replace("path/to/model", str(model)))
    names = runpy.run_path("example.py")
    run, found, algorithm, sampling = (names[name] for name in ("run", "found", "algorithm", "sampling"))
    before, after = load_file(model / "model.safetensors"), load_file(Path(run.model.path) / "model.safetensors")

    batch, budget = sdpo.BatchConfig(num_tasks=1, group_size=4), sdpo.BudgetConfig(attempts=8)
    task = Hopeless().tasks("train", 0)[0]
    hopeless = sdpo.solve_task(run.model, Hopeless(), task, algorithm=algorithm, sampling=sampling, batch=batch, budget=budget)
    record = {
        "metrics": run.metrics,
        "evaluations": run.evaluations,
        "groups": [[len(group.attempts) for group in groups_P] for groups_P in run.groups],
        "changed": sum(not before[name].to(after[name].dtype).equal(after[name]) for name in after),
        "parameters": len(after),
        "found": {"solution": found.solution, "ending": found.ending.value, "attempts": found.spent.attempts},
        "hopeless": {
            "solution": hopeless.solution,
            "ending": hopeless.ending.value,
            "attempts": hopeless.spent.attempts,
            "learned": [step.learned_rows for step in hopeless.steps],
            "texts": [tried.text for step in hopeless.steps for tried in step.attempts],
        },
        "has_ray": "ray" in sys.modules and sys.modules["ray"].is_initialized(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
