"""vLLM's renderer for prompts that are token ids already: it renders no chat, so that what chats need is not imported.

vLLM makes a renderer for every engine, the one of its HTTP servers; with it come openai's 500 modules, half a second.
"""

from __future__ import annotations

from typing import Any

from vllm.renderers.base import BaseRenderer
from vllm.renderers.registry import RENDERER_REGISTRY

USUAL = "hf"
"""vLLM's name of the renderer for most models; others keep their own."""


class TokenRenderer(BaseRenderer[Any]):
    """Hands token ids on."""

    def render_messages(self, messages: Any, params: Any) -> Any:
        raise NotImplementedError("prompts are rendered by sdpo/hindsight/rendering.py")


def register() -> None:
    """Have engines that are made in this process from now on use it."""
    RENDERER_REGISTRY.renderers[USUAL] = (__name__, TokenRenderer.__name__)
