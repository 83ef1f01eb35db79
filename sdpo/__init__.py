"""SDPO: reinforcement learning via self-distillation (arXiv 2601.20802), with GRPO beside it as the baseline."""

__version__ = "0.1.0"
