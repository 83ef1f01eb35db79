"""What one process is made of, without an engine: what a caller leaves half done is not in the next one's way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from sdpo.machines.local import LocalEngine
from sdpo.rollout.engine import VllmEngine
from sdpo.types import Completion, Finish, Prompt, Sampling

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_response_tokens=1)


class OneAtATime:
    """Refuses, like vLLM's engine, to sample while an earlier call is under way."""

    def __init__(self) -> None:
        self.has_work = False

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[list[tuple[Prompt, Completion]]]:
        assert not self.has_work
        self.has_work = True
        try:
            for prompt in prompts:
                completion = Completion(token_ids=(1,), logprobs=(0.0,), text="a", finish=Finish.length, weights_version=0)
                yield [(prompt, completion)]
        finally:
            self.has_work = False


def test_an_interrupted_call_whose_frames_are_kept_does_not_keep_the_engine() -> None:
    """A notebook keeps the frames of the last error. The call under way stayed in the engine, and the next one failed."""
    engine = LocalEngine(cast(VllmEngine, OneAtATime()))
    prompts = [Prompt(token_ids=(1,), seed=seed, task_index=0, attempt_index=seed) for seed in range(3)]
    interrupted = engine.sample(prompts, SAMPLING)
    assert next(interrupted)[0] == prompts[0]
    assert [prompt for prompt, _ in engine.sample(prompts, SAMPLING)] == prompts
    assert list(interrupted) == [], "what was interrupted is over"
