"""Importing this module imports what an engine's process needs; for servers that fork such processes."""

from sdpo.rollout.importing import import_vllm

import_vllm(compiles=False)

import sdpo.rollout.cpu_sampling  # noqa: E402
import sdpo.rollout.token_renderer  # noqa: E402
import sdpo.rollout.transfer  # noqa: E402, F401
