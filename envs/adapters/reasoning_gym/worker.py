"""The process that runs reasoning-gym: makes puzzles, and scores answers in forks that have walled themselves in (``forks.py``).

It runs as a script, with nothing of this package in it but those walls.

What remains: a scorer calculates the score in the process that reads the answer. A text that makes the scorer execute it could
find the nonce in that process's memory and write a score of its own choice. Texts that the nine executing scorers would execute
are refused before (``plain.py``). For a hole in that, or in a scorer not yet known to execute, the walls bound the damage, but
not the score.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import random
import struct
import sys
from collections.abc import Callable
from hashlib import blake2b
from types import ModuleType
from typing import Any

from sdpo.envs.sandbox import forks

_STOOD_IN_FOR = (
    *("matplotlib", "matplotlib.pyplot", "matplotlib.animation", "matplotlib.collections"),
    *("mpl_toolkits", "mpl_toolkits.mplot3d"),
)
"""Imported by a library that could also draw, and never used here: a second to start, and a directory left in /tmp."""

Puzzle = tuple[str, str | None, bytes]
"""Question, reference answer if there is one, and the pickled entry that its scorer wants back."""


class Datasets:
    """The datasets asked for so far, made before any fork, so that a fork finds them made."""

    def __init__(self) -> None:
        for name in _STOOD_IN_FOR:
            sys.modules[name] = ModuleType(name)
        vars(sys.modules["mpl_toolkits.mplot3d"])["Axes3D"] = None
        if importlib.util.find_spec("pycosat") is None:  # has no wheels; one dataset of many needs it, but all import it
            sys.modules["pycosat"] = ModuleType("pycosat")
        gym = importlib.import_module("reasoning_gym")
        self._create = gym.create_dataset
        self.names = sorted(importlib.import_module("reasoning_gym.factory").DATASETS)
        self._made: dict[str, Any] = {}  # Any: the package has no types
        self._puzzles: dict[str, list[Puzzle]] = {}

    def get(self, name: str, options: dict[str, object]) -> Any:
        key = _key(name, options)
        if key not in self._made:
            dataset = self._create(name, **options)
            self._made[key] = dataset
            entry = dataset[0]
            dataset.score_answer(entry["answer"], entry)  # what it imports late, it imports now
        return self._made[key]

    def puzzles(self, name: str, options: dict[str, object], split: str, heldout_share: float) -> list[Puzzle]:
        """The different ones of ``split``: a question's hash, and nothing else, says which split it is in.

        All are made at once and kept: some generators (codeio runs other people's) do not make the same twice in a process.
        """
        dataset, key = self.get(name, options), _key(name, options)
        if key not in self._puzzles:
            random.seed(0)  # some draw from the global generators as well
            importlib.import_module("numpy").random.seed(0)
            found: dict[str, Puzzle] = {}
            for index in range(len(dataset)):
                entry = dataset[index]
                answer = None if entry["answer"] is None else str(entry["answer"])
                found.setdefault(str(entry["question"]), (str(entry["question"]), answer, pickle.dumps(entry)))
            self._puzzles[key] = list(found.values())
        return [puzzle for puzzle in self._puzzles[key] if is_heldout(puzzle[0], heldout_share) == (split == "heldout")]


def _key(name: str, options: dict[str, object]) -> str:
    return json.dumps([name, options], sort_keys=True, default=repr)


def is_heldout(question: str, heldout_share: float) -> bool:
    number = int.from_bytes(blake2b(question.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return number < heldout_share * 2**64


def start(refusals: bytes) -> tuple[object, Callable[[forks.Message], forks.Message]]:
    datasets = Datasets()

    def answer(request: forks.Message) -> forks.Message:
        match request:
            case ("puzzles", str(name), dict(options), str(split), float(heldout_share)):
                return "puzzles", datasets.puzzles(name, options, split, heldout_share)
            case ("score", str(name), dict(options), bytes(entry), str(answer), wall_s, memory_bytes):
                assert isinstance(wall_s, float | int)
                assert isinstance(memory_bytes, int)
                dataset, question = datasets.get(name, options), pickle.loads(entry)
                kind, said = forks.in_fork(
                    lambda: struct.pack("=d", float(dataset.score_answer(answer, question))),
                    wall_s=wall_s,
                    memory_bytes=memory_bytes,
                    refusals=refusals,
                )
                return ("score", struct.unpack("=d", said)[0]) if isinstance(said, bytes) else (kind, said)
        raise ValueError(f"no such request: {request[0]!r}")

    return datasets.names, answer


if __name__ == "__main__":
    forks.serve(lambda: start(bytes.fromhex(sys.argv[1])))
