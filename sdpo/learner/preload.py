"""What a learner's process imports, for a server that forks such processes. Nothing of Ray: a child loads it itself."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed asks while it is imported

import accelerate  # noqa: F401
import deepspeed
import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
import peft  # noqa: F401
import transformers.models.llama.modeling_llama  # noqa: F401

import sdpo.learner.engine  # noqa: F401
