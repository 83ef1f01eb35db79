"""``sdpo train -m KEY=A,B ...``: checks every point, then starts each; one that fails stops no other; then a line a point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from sdpo.config import Config
from sdpo.config.compose import launcher_config, sweep_points, train_config
from sdpo.errors import UserError
from sdpo.sweep import here, slurm
from sdpo.sweep.names import Point, points


def run_sweep(words: Sequence[str]) -> int:
    """Run or submit every point. Returns the exit code: 0 where every point ended well, or was submitted."""
    screen = Console(soft_wrap=True, highlight=False, markup=False)
    dry_run = "dry_run=true" in words
    launcher = launcher_config([word for word in words if word.startswith("hydra")])
    found = _points([word for word in words if not word.startswith("hydra") and word != "dry_run=true"])
    if dry_run:
        for point, config in found:
            shown = here.shown(point) if launcher is None else slurm.shown(slurm.job(point, config, launcher))
            screen.print(f"== {point.name}\n{shown}")
        screen.print(f"{len(found)} points are sound. Nothing was started.")
        return 0
    if launcher is None:
        return here.run([point for point, _ in found], screen.print)
    return slurm.submit([slurm.job(point, config, launcher) for point, config in found], screen.print)


def _points(words: Sequence[str]) -> list[tuple[Point, Config]]:
    """The points with their configs. Raises UserError where one of them is not sound, or its folder is another's."""
    words_of_points = sweep_points(words)
    named = points(words_of_points, [_config(one).name for one in words_of_points])
    found = [(point, _config(point.words)) for point in named]
    folders = [Path(config.runs_dir).absolute() / config.name for _, config in found]
    if len(set(folders)) < len(folders):
        raise UserError("every point of a sweep needs a run folder of its own; two have the same. Leave name= away.")
    return found


def _config(words: Sequence[str]) -> Config:
    try:
        return train_config(words)
    except UserError as error:
        raise UserError(f"every point of a sweep must be sound; {' '.join(words)} is not: {error}") from error
