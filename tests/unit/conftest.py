"""One thread: on a busy machine torch's pool costs such small tensors three times what it saves."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)
