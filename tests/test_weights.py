"""Weights in one buffer come out as they went in, to the last bit."""

import numpy as np
import pytest
import torch

from sdpo.weights import packed

DTYPES = [torch.bfloat16, torch.float32, torch.float16, torch.int8]


def bits(*shape: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Every bit pattern, NaN, infinities and subnormal numbers among them."""
    size = torch.empty((), dtype=dtype).element_size()
    raw = torch.randint(0, 256, (*shape[:-1], shape[-1] * size), generator=torch.Generator().manual_seed(seed))
    return raw.to(torch.uint8).view(dtype)


def raw(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).tolist()


MODEL = {
    f"{dtype}.{'x'.join(map(str, shape))}": bits(*shape, dtype=dtype, seed=seed)
    for seed, (dtype, shape) in enumerate((dtype, shape) for dtype in DTYPES for shape in [(1,), (3,), (5, 7), (2, 1, 33)])
}
"""Odd shapes and mixed types, so that most tensors would start in the middle of another's alignment."""


def test_round_trip_keeps_names_order_shapes_types_and_every_bit():
    out = dict(packed(MODEL).tensors())
    assert list(out) == list(MODEL)
    for name, tensor in MODEL.items():
        assert (out[name].dtype, out[name].shape) == (tensor.dtype, tensor.shape)
        assert raw(out[name]) == raw(tensor)


def test_scalars_and_empty_tensors_survive():
    odd = {
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4),
        "after": torch.tensor([2.5]),
        "last": torch.zeros(3, 0, dtype=torch.bfloat16),
    }
    for name, tensor in packed(odd).tensors():
        assert (tensor.dtype, tensor.shape) == (odd[name].dtype, odd[name].shape)
        assert torch.equal(tensor, odd[name])


@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[:, ::2], lambda x: x[1:]], ids=["transposed", "strided", "tail"])
def test_views_are_packed_as_they_look(view):
    whole = torch.arange(35, dtype=torch.float32).view(5, 7)
    assert torch.equal(dict(packed({"x": view(whole)}).tensors())["x"], view(whole))


def test_packing_copies():
    """The learner goes on training while the engine reads."""
    parameter = torch.nn.Parameter(torch.ones(4))
    weights = packed({"x": parameter})
    with torch.no_grad():
        parameter.add_(1.0)
    (tensor,) = (tensor for _, tensor in weights.tensors())
    assert tensor.tolist() == [1.0] * 4
    assert not tensor.requires_grad


def test_tensors_are_views_on_the_buffer():
    weights = packed(MODEL)
    first, last = weights.buffer.ctypes.data, weights.buffer.ctypes.data + weights.buffer.nbytes
    assert all(first <= tensor.data_ptr() < last for _, tensor in weights.tensors())


def test_tensors_do_not_overlap_and_start_at_multiples_of_their_size():
    entries = packed(MODEL).entries
    ends = [entry.offset + entry.num_bytes for entry in entries]
    assert all(end <= entry.offset for end, entry in zip(ends, entries[1:], strict=False))
    assert all(entry.offset % MODEL[entry.name].element_size() == 0 for entry in entries)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_read_only_buffer_can_be_read():
    """Ray hands out read-only arrays."""
    weights = packed(MODEL)
    weights.buffer.setflags(write=False)
    assert isinstance(weights.buffer, np.ndarray)
    assert all(raw(tensor) == raw(MODEL[name]) for name, tensor in weights.tensors())


def test_no_parameters_make_an_empty_buffer():
    assert list(packed({}).tensors()) == []
