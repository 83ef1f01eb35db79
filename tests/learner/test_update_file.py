"""An update in a file comes back as it was; any other file is refused, and no code in it is run."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sdpo.batches.updates import pack
from sdpo.config import BatchConfig, Blend, SDPOConfig
from sdpo.errors import UserError
from sdpo.learner import update_file
from sdpo.types import MicroBatch, Pack, Ranks, Sample, Update


def update(num_ranks: int = 2) -> Update:
    """Four answers to one question, half of them distilled, and a rank with a filler."""
    samples = [
        Sample(
            prompt_ids=tuple(range(20)),
            teacher_prompt_ids=tuple(range(30)) if row % 2 else None,
            response_ids=(row, 1, 2),
            loss_mask=(True, row > 0, True),
            sampled_logprobs=(-0.1, -0.2, -0.3),
            advantage=0.3 - row,
            policy_gradient_weight=0.7,
        )
        for row in range(4)
    ]
    algorithm = SDPOConfig(routing=Blend(policy_gradient_share=0.7))
    (made,) = pack(samples, BatchConfig(num_tasks=1), Ranks(num=num_ranks, pairs_per_token=100.0), algorithm)
    return dataclasses.replace(made, index=3)


def same(a: object, b: object) -> bool:
    """Of equal type and value throughout, tensors bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Update | MicroBatch | Pack):
        return all(same(getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
    return a == b


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_an_update_comes_back_as_it_was_with_its_step(tmp_path: Path, num_ranks: int) -> None:
    kept = update(num_ranks)
    assert len(kept.micro_batches) == num_ranks
    assert num_ranks > 1 or len(kept.micro_batches[0][0].student.segments) > 1
    update_file.save(tmp_path / "skipped" / "step_000008-update_3.pt", kept, step=7)
    found, step = update_file.load(tmp_path / "skipped" / "step_000008-update_3.pt")
    assert step == 7
    assert same(found, kept)
    assert not same(found, dataclasses.replace(kept, index=4))


def test_not_a_number_comes_back_too(tmp_path: Path) -> None:
    """Updates are kept because a number in them, or made of them, is not finite."""
    kept = update(1)
    ((batch,),) = kept.micro_batches
    batch.sampled_logprobs_N[0] = torch.nan
    update_file.save(tmp_path / "x.pt", kept, step=0)
    ((found,),) = update_file.load(tmp_path / "x.pt")[0].micro_batches
    torch.testing.assert_close(found.sampled_logprobs_N, batch.sampled_logprobs_N, equal_nan=True, rtol=0, atol=0)


def test_nothing_half_written_is_left_beside_it(tmp_path: Path) -> None:
    update_file.save(tmp_path / "x.pt", update(), step=0)
    update_file.save(tmp_path / "x.pt", update(), step=1)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


class RunsCode:
    """What it writes to is made when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self._proof,)


@pytest.mark.parametrize("way", ["torch.save", "pickle", "inside of an update"])
def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path: Path, way: str) -> None:
    file, proof = tmp_path / "x.pt", tmp_path / "proof"
    match way:
        case "torch.save":
            torch.save(RunsCode(proof), file)
        case "pickle":
            file.write_bytes(pickle.dumps(RunsCode(proof), protocol=2))
        case _:
            torch.save({"step": 0, "update": {"index": RunsCode(proof), "micro_batches": ()}}, file)
    with pytest.raises(UserError, match=r"batch= names an update that a run has saved \(runs/NAME/skipped/\*\.pt\); .*x\.pt"):
        update_file.load(file)
    assert not proof.exists()


def write(file: Path, what: object) -> None:
    if isinstance(what, bytes):
        file.write_bytes(what)
    else:
        torch.save(what, file)


OTHERS = {
    "an empty file": b"",
    "a text": b"hello\n",
    "a picture": b"\xff\xd8\xff\xe0\x00\x10JFIF",
    "json": json.dumps({"step": 1, "update": {}}).encode(),
    "a plain pickle": pickle.dumps({"step": 1}, protocol=2),
    "a number": 3,
    "a list": [1, 2, 3],
    "nothing": None,
    "a checkpoint of something": {"model": torch.zeros(3)},
    "an update of nothing": {"step": 1, "update": None},
    "an update without its parts": {"step": 1, "update": {"index": 0}},
    "an update with parts that are none": {"step": 1, "update": {"micro_batches": ((3,),)}},
    "an update with too much": {"step": 1, "update": {"micro_batches": (), "unheard_of": 1}},
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.pt", OTHERS[name])
    with pytest.raises(UserError, match=r"batch= names an update that a run has saved .*x\.pt is none"):
        update_file.load(tmp_path / "x.pt")


STUMBLES = {"a tensor": torch.zeros(3), "a text that begins with an a": b"a line of text\n", "a single byte": b"\x80"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", list(STUMBLES))
def test_other_files_that_torch_stumbles_over_are_refused_by_name_too(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.pt", STUMBLES[name])
    with pytest.raises(UserError, match=r"x\.pt is none"):
        update_file.load(tmp_path / "x.pt")


@pytest.mark.parametrize("left", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, left: float) -> None:
    file = tmp_path / "x.pt"
    update_file.save(file, update(), step=0)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    with pytest.raises(UserError, match=r"x\.pt is none"):
        update_file.load(file)


def test_a_file_that_is_not_there_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.pt", tmp_path):
        with pytest.raises(UserError, match="is none"):
            update_file.load(path)
