"""``make gym``: is SDPO better than GRPO, where, by how much, and what of it matters?

Trains the gym's model, tunes both algorithms' learning rates on the same grid, compares them over base success and over answer
length with several seeds, and changes one thing of SDPO at a time. Prints tables, writes curves as SVG, and ends in a line of
JSON. An interrupted gym goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sdpo.report.chart import Series, line_chart
from sdpo.run.cache import cache_folder
from tests.learning import cases
from tests.learning.comparison import Comparison, generations_to, spread
from tests.learning.pool import Pool
from tests.learning.pretrain import Recipe, gym_model
from tests.learning.runs import Curve

ALGORITHMS = ("sdpo", "grpo")


class Report:
    """Where tables and pictures go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._screen = Console(width=110)

    def say(self, sentence: str) -> None:
        self._screen.print(sentence, highlight=False)

    def table(self, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(title=title)
        for index, head in enumerate(heads):
            table.add_column(head, justify="left" if index == 0 else "right")
        for row in rows:
            table.add_row(*row)
        self._screen.print(table)

    def chart(self, name: str, title: str, series: Sequence[Series], *, x_label: str, y_label: str) -> None:
        (self.folder / f"{name}.svg").write_text(line_chart(title, series, x_label=x_label, y_label=y_label))


def tuned(pool: Pool, report: Report) -> dict[str, str]:
    """Each algorithm's learning rate, from one grid and on seeds of its own: the rate whose worst seed does best.

    A run's score is its mean held-out success over the generations; a rate's is that of the worst seed, averaged over base
    success. By the mean over seeds a rate that collapses in one run of ten looks like the fastest. A rate is given up as soon as
    it could not win any more if it were perfect from there on.
    """
    rates: dict[str, str] = {}
    rows = []
    for algorithm in ALGORITHMS:
        scores: dict[str, float] = {}
        for rate in sorted(cases.RATES, key=lambda rate: abs(math.log10(float(rate) / 1e-3))):  # from the middle outwards
            worst: list[float] = []
            for success in cases.TUNING_SUCCESS:
                cell = cases.cell(algorithm, cases.CURVE_LENGTH, success, rate, label="tuning", steps=cases.TUNING_STEPS)
                worst.append(min(area(curve) for curve in pool.curves("learning rates", cell.cases(cases.TUNING_SEEDS))))
                at_most = (sum(worst) + len(cases.TUNING_SUCCESS) - len(worst)) / len(cases.TUNING_SUCCESS)
                scores[rate] = at_most
                if at_most < max(scores.values()):
                    break
        rates[algorithm] = max(scores, key=lambda rate: scores[rate])
        cells = [f"{'' if scores[rate] == scores[rates[algorithm]] else '≤ '}{scores[rate]:.3f}" for rate in cases.RATES]
        rows.append([algorithm, *cells, rates[algorithm]])
    report.table("Learning rates: held-out success over the run, of the worst seed", ["", *cases.RATES, "chosen"], rows)
    return rates


def area(curve: Curve) -> float:
    """Mean success over the generations of the budget; a run that ended solved stays where it was."""
    budget = cases.TUNING_STEPS * cases.ATTEMPTS_PER_STEP
    points = [*zip(curve.generations, curve.success, strict=True), (budget, curve.success[-1])]
    total = sum((after[0] - before[0]) * (before[1] + after[1]) / 2 for before, after in pairwise(points))
    return total / budget


def compared(
    pool: Pool, report: Report, what: str, levels: Sequence[tuple[int, float]], rates: dict[str, str], seeds: range
) -> list[Comparison]:
    """SDPO against GRPO at each (length, base success)."""
    found = []
    for length, success in levels:
        curves = {
            algorithm: pool.curves(what, cases.cell(algorithm, length, success, rates[algorithm]).cases(seeds))
            for algorithm in ALGORITHMS
        }
        one = Comparison(length=length, base_success=success, sdpo=curves["sdpo"], grpo=curves["grpo"])
        found.append(one)
        report.chart(
            f"success-l{length}-p{success:g}",
            f"Held-out success, {length} digits, base success {success:.1%}",
            [Series.of_runs(name, [(c.generations, c.success) for c in runs]) for name, runs in curves.items()],
            x_label="generations",
            y_label="held-out success",
        )
    report.table(
        f"SDPO against GRPO, over {what}: what SDPO needs to reach GRPO's final success, over what GRPO needs",
        ["digits, base success (measured)", "SDPO ends at", "GRPO ends at", "generations", "tokens", "seconds", "seeds"],
        [one.row() for one in found],
    )
    return found


def ablated(pool: Pool, report: Report, rates: dict[str, str], seeds: range) -> dict[str, object]:
    """SDPO with one thing changed, and GRPO beside it; what each came to, for a machine."""
    found: dict[str, object] = {}
    rows = []
    for what, cell in cases.ablations(rates).items():
        curves = pool.curves("ablations", cell.cases(seeds))
        ends, credit = spread([curve.success[-1] for curve in curves]), spread([curve.credit for curve in curves]).mean
        reached = [generations for curve in curves if (generations := generations_to(curve, 0.5)) is not None]
        half = spread(reached) if len(reached) == len(curves) else None
        rows.append([what, str(ends), "not by all" if half is None else str(half), f"{credit:+.2f}"])
        found[what] = {
            "ends_at": [round(ends.mean, 4), round(ends.error, 4)],
            "generations_to_half": None if half is None else [round(half.mean, 1), round(half.error, 1)],
            "credit": round(credit, 3),
        }
    report.table(
        f"SDPO with one thing changed ({cases.CURVE_LENGTH} digits, base success {cases.ABLATION_SUCCESS:.1%}, "
        f"{cases.ABLATION_STEPS * cases.ATTEMPTS_PER_STEP} generations)",
        ["", "ends at", "generations to 50 %", "credit, nats"],
        rows,
    )
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.learning.gym", description=__doc__)
    parser.add_argument(
        "what",
        choices=["all", "model", "ablations"],
        nargs="?",
        default="all",
        help="model: make it and print its folder; ablations: those alone, at the rates of --rates",
    )
    parser.add_argument("--rates", nargs=2, default=["1e-3", "1e-3"], metavar=("SDPO", "GRPO"), help="of the ablations alone")
    parser.add_argument("--folder", type=Path, default=Path("runs/gym"), help="records, curves and pictures")
    parser.add_argument(
        "--seeds", type=int, default=cases.NUM_SEEDS, help="of the comparison over base success, or of the ablations alone"
    )
    parser.add_argument("--workers", type=int, help="processes, one a core; every core if not said")
    arguments = parser.parse_args(words)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    report = Report(arguments.folder)
    model = gym_model(cache_folder() / "models", Recipe(), lambda sentence: print(sentence, file=sys.stderr))
    if arguments.what == "model":
        print(model)
        return 0
    with Pool(model, arguments.folder, arguments.workers) as pool:
        if arguments.what == "ablations":
            rates = dict(zip(ALGORITHMS, arguments.rates, strict=True))
            changed = ablated(pool, report, rates, range(arguments.seeds))
            (report.folder / "ablations.json").write_text(json.dumps({"rates": rates, **changed}, indent=1) + "\n")
            return 0
        rates = tuned(pool, report)
        over_success = compared(
            pool,
            report,
            "base success",
            [(cases.CURVE_LENGTH, success) for success in cases.CURVE_SUCCESS],
            rates,
            range(arguments.seeds),
        )
        over_length = compared(
            pool,
            report,
            "answer length",
            [(length, cases.LENGTHS_SUCCESS) for length in cases.OTHER_LENGTHS],
            rates,
            range(cases.NUM_LENGTH_SEEDS),
        )
        changed = ablated(pool, report, rates, range(cases.NUM_ABLATION_SEEDS))
    logs = [math.log10(one.base_success) for one in over_success]
    ratios_chart(report, "ratio-over-base-success", "log10 of the base success", logs, over_success)
    found = summary(over_success, over_length, changed, rates)
    (report.folder / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return 0


def ratios_chart(report: Report, name: str, over: str, xs: Sequence[float], compared: Sequence[Comparison]) -> None:
    """What SDPO needs over what GRPO needs, 1 being the same."""
    series = []
    for cost in ("generations", "tokens", "seconds"):
        spreads = [spread(one.ratios(cost)) for one in compared]
        series.append(
            Series(label=cost, xs=tuple(xs), ys=tuple(one.mean for one in spreads), errors=tuple(one.error for one in spreads))
        )
    report.chart(name, "What SDPO needs to GRPO's final success, over what GRPO needs", series, x_label=over, y_label="ratio")


def summary(
    over_success: Sequence[Comparison], over_length: Sequence[Comparison], changed: dict[str, object], rates: dict[str, str]
) -> dict[str, object]:
    """The line of JSON."""
    figure = spread([ratio for one in over_success if one.base_success < 0.01 for ratio in one.ratios("generations")])
    return {
        "generations_vs_grpo": round(figure.mean, 4),
        "standard_error": round(figure.error, 4),
        "runs": figure.num,
        "over_base_success": {f"{one.base_success:g}": one.figures() for one in over_success},
        "over_length": {str(one.length): one.figures() for one in over_length},
        "ablations": changed,
        "learning_rates": rates,
    }


if __name__ == "__main__":
    sys.exit(main())
