"""``import_vllm``: what an engine's process imports of vLLM, and no more.

vLLM 0.30 imports 4,800 modules. Half of the time goes into its HTTP servers, which nobody starts here, and into TorchInductor.
That has nothing to compile on a CPU with ``rollout.enforce_eager``. The model stays as it is, and vLLM's small decorated
functions are not worth a C++ compiler's seconds.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the actor is the process; a second one only adds a hop
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the learner wants the same cores while the engine rests
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_PATCHES = "vllm.env_override"
"""vLLM's module that mends TorchInductor, and imports all of it for that."""
_OF_SERVERS = {
    "vllm.entrypoints.mcp.tool_server": "ToolServer",
    "vllm.parser.engine.adapters": "ParserEngineReasoningAdapter",
}
"""Modules of vLLM's HTTP servers, each with the class that the engine's own modules name. The first is an annotation, the second
a parser of reasoning that nobody is asked for here. They import another thousand modules, openai and fastapi among them."""
_LATER = (
    "vllm.model_executor.model_loader.default_loader",
    "vllm.model_executor.models.llama",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
)
"""What vLLM imports once an engine is made on a CPU."""


def import_vllm(*, compiles: bool) -> None:
    """Import vLLM. On a CPU, unless it ``compiles``, TorchInductor is not imported.

    From then on torch.compile leaves what is decorated with it as it is, in this process.
    """
    os.environ.update(ENVIRONMENT)
    import torch

    if torch.cuda.is_available():
        importlib.import_module("vllm")
        return
    if "torch._dynamo" in sys.modules:  # which has read the environment
        sys.modules["torch._dynamo"].config.disable = not compiles
    was_collecting = gc.isenabled()
    gc.disable()  # it finds nothing while modules are imported, and takes a fifth of the time
    try:
        if compiles:
            if "vllm" in sys.modules and not hasattr(sys.modules[_PATCHES], "torch"):
                del sys.modules[_PATCHES]  # left out when vLLM was imported
                importlib.import_module(_PATCHES)
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = "1"
            sys.modules.setdefault(_PATCHES, ModuleType(_PATCHES))
        with _without_servers():
            for module in ("vllm.engine.arg_utils", "vllm.v1.engine.llm_engine", *_LATER):
                importlib.import_module(module)
    finally:
        if was_collecting:
            gc.enable()


@contextmanager
def _without_servers() -> Iterator[None]:
    """Have empty classes stand for the servers' modules that are not imported yet, while the engine's own are."""
    placed = [name for name in _OF_SERVERS if name not in sys.modules]
    for name in placed:
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], _OF_SERVERS[name], type(_OF_SERVERS[name], (), {}))
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]
