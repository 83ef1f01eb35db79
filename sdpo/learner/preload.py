"""What a learner's process imports, for a server that forks such processes. Nothing of Ray: a child loads it itself."""

import os
from importlib import import_module

import torch

if not torch.cuda.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed asks while it is imported

for _module in (
    "deepspeed",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "peft",
    "transformers.models.llama.modeling_llama",
    "sdpo.learner.engine",
):
    import_module(_module)
