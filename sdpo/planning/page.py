"""A plan on the screen: places, memory with its arithmetic, what does not fit, what would, and how it scales."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdpo.config import Config
from sdpo.planning.cpu_plan import CpuPlan
from sdpo.planning.gpu_plan import GpuPlan
from sdpo.planning.host_memory import Node
from sdpo.planning.places import Places
from sdpo.planning.scale import Curve
from sdpo.planning.shapes import ModelShape
from sdpo.planning.suggestions import Turn
from sdpo.planning.terms import GIB, Term, counted, total
from sdpo.terminal.printable import printable

MAX_NODES = 16
"""Nodes that are listed; of more, those that look alike are left out anyway."""


def show_gpu(screen: Console, plan: GpuPlan) -> None:
    _say(screen, _model_line(plan.shape))
    _say(screen, _together(plan.config, plan.where))
    screen.print(_places_table(plan.where))
    title = f"a learner rank, on its GPU of {plan.machine.gpu_gib:g} GiB"
    screen.print(_terms_table(title, [term for term in plan.rank if not term.is_on_host]))
    screen.print(_terms_table(f"an engine, on each GPU it spans, of {plan.machine.gpu_gib:g} GiB", plan.engine.terms))
    _say(
        screen,
        f"its KV cache holds {plan.engine.cache_tokens:,} tokens at {plan.engine.token_bytes / 1024:.1f} KiB; the longest "
        f"sequence has {plan.config.max_model_tokens:,}",
    )
    for alike, terms in _alike(plan.hosts):
        screen.print(_terms_table(f"host memory of {alike}", terms))


def show_cpu(screen: Console, plan: CpuPlan) -> None:
    _say(screen, _model_line(plan.shape))
    for process in plan.processes:
        many = f"{process.num} x {process.name}" if process.num > 1 else process.name
        screen.print(_terms_table(many, process.terms))
    has = "" if plan.machine.host_gib is None else f", of {plan.machine.host_gib:.1f} GiB"
    _say(screen, f"the machine at its peak: {plan.machine_gib:.1f} GiB{has}")


def show_problems(screen: Console, problems: Sequence[str], remarks: Sequence[str], ways: Sequence[Sequence[Turn]]) -> None:
    for sentence in remarks:
        screen.print(Text.assemble(("note ", "cyan"), printable(sentence)), soft_wrap=True)
    for sentence in problems:
        screen.print(Text.assemble(("does not fit: ", "bold red"), printable(sentence)), soft_wrap=True)
    for way in ways:
        words, costs = " ".join(turn.word for turn in way), "; ".join(turn.cost for turn in way)
        screen.print(Text.assemble(("→ it would fit with ", "bold yellow"), words, f"  ({costs})"), soft_wrap=True)
    if problems and not ways:
        _say(screen, "no way of up to three keys makes it fit: more or larger GPUs, a smaller model, or shorter responses would")
    if not problems:
        screen.print(Text("it fits", style="bold green"))


def show_scale(screen: Console, curve: Curve) -> None:
    _say(screen, curve.title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("nodes", "step s", "efficiency", "attempts/h", "limits"):
        table.add_column(head, justify="left" if head == "limits" else "right")
    for point in curve.points:
        table.add_row(
            str(point.num_nodes),
            f"{point.step_s:.2f}",
            f"{point.efficiency:.0%}",
            f"{point.attempts_per_h:,.0f}",
            Text(f"{point.limit.value} {point.limit_share:.0%}"),
        )
    screen.print(table)
    for sentence in curve.assumptions:
        _say(screen, f"  assumed: {sentence}")


def _say(screen: Console, sentence: str) -> None:
    screen.print(printable(sentence), markup=False, soft_wrap=True)


def _model_line(shape: ModelShape) -> str:
    return (
        f"{counted(shape.num_parameters)} parameters ({shape.source}): {shape.num_layers} layers, hidden {shape.hidden}, "
        f"{shape.num_heads} heads over {shape.num_kv_heads} key-value heads of {shape.head_size}, vocabulary {shape.vocabulary:,}"
        f"{', tied' if shape.is_tied else ''}"
    )


def _together(config: Config, where: Places) -> str:
    """Which ranks work together, and over what."""
    learner, spans = config.learner, len(where.learner_nodes)
    ways = {0: "every rank holds everything", 1: "optimizer states", 2: "optimizer states and gradients"}
    split = ways.get(learner.zero_stage, "optimizer states, gradients and parameters")
    zero = f"ZeRO {learner.zero_stage}: {split}" + (f" split over {learner.num_ranks} ranks" if learner.zero_stage else "")
    rows = f"; teams of {learner.sequence_parallel} ranks share rows" if learner.sequence_parallel > 1 else ""
    width = config.rollout.tensor_parallel_size
    engines = f"; {config.rollout.num_engines} engines of {width} GPU{'s' * (width > 1)}"
    mode = "colocated: a rank and an engine share a GPU" if where.shares.are_colocated else "separate GPUs"
    return f"{zero} on {spans} node{'s' * (spans > 1)}{rows}{engines}; {mode}"


def _places_table(where: Places) -> Table:
    """A row a node, runs of ranks and engines by their numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("node", "learner ranks (GPU)", "engines (GPU)"):
        table.add_column(head, overflow="fold")
    for node in range(min(where.num_nodes, MAX_NODES)):
        ranks = [f"{rank} ({spot.gpu})" for rank, spot in enumerate(where.ranks) if spot.node == node]
        engines = [
            f"{index} ({', '.join(str(spot.gpu) for spot in spots)})"
            for index, spots in enumerate(where.engines)
            if spots[0].node == node
        ]
        table.add_row(str(node), " ".join(ranks) or "–", " ".join(engines) or "–")
    if where.num_nodes > MAX_NODES:
        table.add_row("…", f"{where.num_nodes - MAX_NODES} more nodes", "in the line of JSON")
    return table


def _terms_table(title: str, terms: Sequence[Term]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text(title), no_wrap=True)
    table.add_column("GiB", justify="right", no_wrap=True)
    table.add_column("from", overflow="fold")
    for term in terms:
        table.add_row(Text(term.name), f"{term.gib:.2f}", Text(term.arithmetic))
    table.add_section()
    table.add_row("together", f"{sum(term.num_bytes for term in terms) / GIB:.2f}", "")
    return table


def _alike(hosts: Sequence[tuple[Node, tuple[Term, ...]]]) -> list[tuple[str, tuple[Term, ...]]]:
    """Nodes that hold the same, together."""
    groups: dict[tuple[Term, ...], list[int]] = {}
    for node, terms in hosts:
        groups.setdefault(terms, []).append(node.index)
    return [
        (f"node {found[0]}" if len(found) == 1 else f"each of {len(found)} nodes, {found[0]} to {found[-1]}", terms)
        for terms, found in groups.items()
        if total(terms) > 0.0
    ]
