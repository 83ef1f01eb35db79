"""The rooms and who may enter them: a module imports only strictly lower layers, and heavy libraries stay in their one room."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOT_MODULES = ("cli", "errors", "metrics", "protocols", "train", "types", "weights")
"""What may lie in ``sdpo/`` itself, beside ``__init__``: the algorithm, its words, and the door."""
LAYERS = [
    {"sdpo.plugins"},
    {"sdpo", "sdpo.errors", "sdpo.types", "sdpo.weights"},
    {"sdpo.config", "sdpo.envs", "sdpo.metrics"},
    {"sdpo.protocols", "sdpo.hindsight", "sdpo.objectives", "sdpo.guards"},
    {"sdpo.batches", "sdpo.run"},
    {"sdpo.attempts", "sdpo.forkserver", "sdpo.kubernetes", "sdpo.terminal"},
    {"sdpo.cluster", "sdpo.environments", "sdpo.evaluation", "sdpo.preflight", "sdpo.report", "sdpo.sweep", "sdpo.tracking"},
    {"sdpo.learner", "sdpo.planning", "sdpo.rollout", "sdpo.train"},
    {"sdpo.machines"},
    {"sdpo.solving", "sdpo.warmup"},
    {"sdpo.discovery"},
    {"sdpo.commands"},
    {"sdpo.cli"},
]
ROOMS = {
    "vllm": ("sdpo.rollout",),
    "deepspeed": ("sdpo.learner",),
    "ray": ("sdpo.rollout", "sdpo.learner.group", "sdpo.learner.answers", "sdpo.cluster"),
    "hydra": ("sdpo.config",),
    "omegaconf": ("sdpo.config",),
    "wandb": ("sdpo.tracking",),
    "mlflow": ("sdpo.tracking",),
    "tensorboard": ("sdpo.tracking",),
    "starlette": ("sdpo.report",),
    "uvicorn": ("sdpo.report",),
}
LIGHT = (
    "sdpo.plugins",
    "sdpo.types",
    "sdpo.config",
    "sdpo.errors",
    "sdpo.hindsight.hints",
    "sdpo.hindsight.success_buffer",
    "sdpo.attempts.groups",
    "sdpo.attempts.conversation",
    "sdpo.attempts.task_stream",
    "sdpo.run.journal",
    "sdpo.envs",
    "sdpo.environments",
    "sdpo.metrics",
    "sdpo.guards",
    "sdpo.kubernetes",
    "sdpo.report",
    "sdpo.planning",
    "sdpo.cluster.gpu_shares",
    "sdpo.commands.help",
    "sdpo.commands.table",
)
"""Modules that may not import torch: an environment author and a config check need none."""
FOLDERS = {"sdpo": ROOT / "sdpo", "sdpo.envs": ROOT / "envs", "sdpo.conf": ROOT / "conf"}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *parts])
            found[name.removesuffix(".__init__")] = file
    return found


@cache
def imports(file: Path) -> tuple[str, ...]:
    """Every imported module, wherever in the file, but for those under ``if TYPE_CHECKING``; a file is parsed once."""
    found: list[str] = []
    waiting: list[ast.AST] = [ast.parse(file.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "relative imports are not used"
            assert node.level == 0, "relative imports are not used"
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names if f"{node.module}.{alias.name}" in modules()]
    return tuple(found)


def room(module: str) -> str:
    """The top-level room of a module: ``sdpo.rollout.engine`` lives in ``sdpo.rollout``."""
    return ".".join(module.split(".")[:2])


def layer(module: str) -> int:
    found = [index for index, rooms in enumerate(LAYERS) if room(module) in rooms]
    assert found, f"{module} has no layer; give it one in {Path(__file__).name}"
    return found[0]


@pytest.mark.parametrize("module", sorted(name for name in modules() if name != "sdpo.conf"))
def test_a_module_imports_only_strictly_lower_layers(module: str) -> None:
    for imported in imports(modules()[module]):
        if imported.split(".")[0] == "sdpo" and room(imported) != room(module) and imported != "sdpo":
            assert layer(imported) < layer(module), (
                f"{module} (layer {layer(module)}) imports {imported} (layer {layer(imported)})"
            )


@pytest.mark.parametrize("library", sorted(ROOMS))
def test_a_heavy_library_stays_in_its_room(library: str) -> None:
    for module, file in modules().items():
        if not module.startswith(ROOMS[library]):
            found = {imported for imported in imports(file) if imported.split(".")[0] == library}
            assert not found, f"{module} imports {found}; only {ROOMS[library]} may"


def test_light_modules_import_no_torch() -> None:
    for module, file in modules().items():
        if module.startswith(LIGHT):
            heavy = {"torch", "transformers", "vllm", "ray", "deepspeed"} & {imported.split(".")[0] for imported in imports(file)}
            assert not heavy, f"{module} imports {heavy}"


def test_the_root_holds_the_algorithm_and_nothing_else() -> None:
    """44 modules lay there once, and a newcomer met all of them before the loop."""
    found = {file.stem for file in (ROOT / "sdpo").glob("*.py")}
    assert found == {"__init__", *ROOT_MODULES}, "a module belongs into a room: docs/README.md lists them"


def test_every_package_is_shipped() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    for module, file in modules().items():
        if file.name == "__init__.py":
            assert f'"{module}"' in declared, f"{module} is missing from [tool.setuptools] packages"
