"""``sdpo plan [KEY=VALUE …]``: where everything goes and what it takes, before anything starts. Ends in a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from rich.console import Console

from sdpo.config import Config
from sdpo.errors import UserError
from sdpo.planning.cpu_plan import CpuPlan, cpu_plan
from sdpo.planning.gpu_plan import GpuPlan, gpu_plan
from sdpo.planning.page import show_cpu, show_gpu, show_problems, show_scale
from sdpo.planning.request import PlanRequest, plan_request
from sdpo.planning.scale import curves
from sdpo.planning.scale_source import workload
from sdpo.planning.shapes import ModelShape, external_shape, shape_of
from sdpo.planning.suggestions import Turn, suggestions

WIDTH_IN_FILES = 140


def run_plan(words: Sequence[str]) -> int:
    """The exit code: 0 where the run fits, 1 where it cannot. Raises UserError for bad input."""
    request = plan_request(words)
    config = request.config
    shape, external = shape_of(config.model.path), external_shape(config)
    plan = plan_of(request, config, shape, external)
    scaled = curves(workload(request, shape), request.network) if request.scale is not None else ()
    ways: tuple[tuple[Turn, ...], ...] = ()
    if not plan.fits:
        ways = suggestions(config, shape, lambda other: _fits(request, other, shape, external), is_gpu=plan.where.is_gpu)
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen = Console(highlight=False, width=WIDTH_IN_FILES)
    if isinstance(plan, GpuPlan):
        show_gpu(screen, plan)
    else:
        show_cpu(screen, plan)
    show_problems(screen, plan.problems, plan.remarks, ways)
    for curve in scaled:
        show_scale(screen, curve)
    print(json.dumps({**_record(plan, ways), **({"scale": [curve.record() for curve in scaled]} if scaled else {})}))
    return 0 if plan.fits else 1


def plan_of(request: PlanRequest, config: Config, shape: ModelShape, external: ModelShape | None) -> GpuPlan | CpuPlan:
    """Raises UserError where not even places are found."""
    if request.machine.gpus_per_node > 0:
        return gpu_plan(config, shape, external, request.machine)
    return cpu_plan(config, shape, external, request.machine)


def _fits(request: PlanRequest, config: Config, shape: ModelShape, external: ModelShape | None) -> bool:
    try:
        return plan_of(request, config, shape, external).fits
    except UserError:
        return False


def _record(plan: GpuPlan | CpuPlan, ways: Sequence[Sequence[Turn]]) -> dict[str, object]:
    found: dict[str, object] = {
        "fits": plan.fits,
        "parameters": plan.shape.num_parameters,
        "ranks": [str(spot) for spot in plan.where.ranks],
        "engines": [[str(spot) for spot in spots] for spots in plan.where.engines],
        "problems": list(plan.problems),
        "suggestions": [[turn.word for turn in way] for way in ways],
    }
    if isinstance(plan, GpuPlan):
        rank, host = ({t.name: round(t.gib, 4) for t in plan.rank if t.is_on_host is side} for side in (False, True))
        found |= {
            "rank_gib": rank,
            "rank_host_gib": host,
            "engine_gib": {term.name: round(term.gib, 4) for term in plan.engine.terms},
            "kv_cache_tokens": plan.engine.cache_tokens,
            "host_gib": [round(sum(term.gib for term in terms), 4) for _, terms in plan.hosts],
        }
    else:
        found |= {
            "process_gib": {one.name: round(one.gib, 4) for one in plan.processes},
            "processes": {one.name: one.num for one in plan.processes},
            "machine_gib": round(plan.machine_gib, 4),
        }
    return found
