"""A Ray of this machine's own that does not come up is tried again, and its failure is told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sdpo.cluster import local_node
from sdpo.cluster.local_node import NUM_STARTS, LocalNode
from sdpo.config import ClusterConfig


class Node:
    """Fails as often as it is told to, and writes into its parameters as Ray's does."""

    failures: list[Exception]
    seen: list[object]
    address = "127.0.0.1:1"
    all_processes: Mapping[str, object] = {}

    def __init__(self, params: object, **words: object) -> None:
        assert all(params is not other for other in self.seen)
        self.seen.append(params)
        if self.failures:
            raise self.failures.pop()

    def kill_all_processes(self, **words: object) -> None:
        """There are none."""


def start(monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> LocalNode:
    monkeypatch.setattr(Node, "failures", failures, raising=False)
    monkeypatch.setattr(Node, "seen", [], raising=False)
    monkeypatch.setattr(local_node, "_Node", Node)
    return LocalNode(ClusterConfig(object_store_gib=0.2))


def test_a_slow_start_is_tried_again_with_new_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second trial found the first one's session in its parameters, and failed over it."""
    node = start(monkeypatch, [RuntimeError("it timed out")] * (NUM_STARTS - 1))
    assert node.address() == "127.0.0.1:1"
    node.stop()
    assert len(Node.seen) == NUM_STARTS


@pytest.mark.parametrize("failures", [[ValueError("no such port")], [RuntimeError("it timed out")] * NUM_STARTS])
def test_what_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch, failures: list[Exception]) -> None:
    error = type(failures[0])
    node = start(monkeypatch, failures)
    with pytest.raises(error):
        node.address()
    node.stop()


def test_it_listens_at_loopback_alone() -> None:
    """It listened at all addresses and asked for no token: whoever reached the machine could have it run anything."""
    node = object.__new__(LocalNode)
    node._config, node._store_bytes = ClusterConfig(object_store_gib=0.2), 2**28
    assert node._params().node_ip_address == "127.0.0.1"
