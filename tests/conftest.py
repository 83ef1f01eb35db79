"""What every test run needs: an order, one test at a time where a test must be alone, and what is dear only once.

The process that deals the tests out starts what integration tests share (``session.py``), if any of them may be run.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import sdpo.forkserver.server  # noqa: F401 - remembers the environment, before anything is imported that adds to it

LONGEST = (
    "tests/learner/test_course.py",
    "tests/learner/test_resume.py",
    "tests/envs/test_check.py",
    "tests/envs/test_adapters_reasoning_gym.py",
    "tests/envs/test_attacks.py",
    "tests/envs/test_attacks_on_verdicts.py",
    "tests/envs/test_sandbox.py",
    "tests/batches/test_updates.py",
    "tests/commands/test_bad_input.py",
    "tests/solving/test_searches.py",
    "tests/config/test_compose.py",
)
"""Files that take half a minute and more, the longest first."""


@pytest.fixture(autouse=True, scope="module")
def one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """One thread, but for what learns: so little work takes longer to hand to a second thread, on a busy machine, than to do."""
    torch = sys.modules.get("torch")  # what does not use it need not wait for it
    if torch is None or request.module.__name__.startswith("tests.learning"):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first the files that must be alone, then those with real processes, then the long ones: none is left to the end.

    A worker takes whole files in this order (``--dist loadfile --no-loadscope-reorder``).
    """

    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        file = item.nodeid.partition("::")[0]
        rank = LONGEST.index(file) if file in LONGEST else len(LONGEST)
        return item.get_closest_marker("alone") is None, item.get_closest_marker("integration") is None, rank

    first: dict[str, tuple[bool, bool, int]] = {}
    for item in items:
        file = item.nodeid.partition("::")[0]
        first[file] = min(first.get(file, (True, True, len(LONGEST))), place(item))
    items.sort(key=lambda item: first[item.nodeid.partition("::")[0]])
    for item in items:  # one that starts a real run by mistake ends the suite in two minutes, not in ten
        if not any(item.get_closest_marker(mark) for mark in ("integration", "full", "timeout")):
            item.add_marker(pytest.mark.timeout(120))


def pytest_collection_finish() -> None:
    """Collect no garbage among what imports left behind: it is a million objects, and looked through again and again."""
    gc.freeze()
    gc.enable()


class Turns:
    """Lets workers test side by side, but for a test that must be alone: it waits for the others, and they for it."""

    def __init__(self, run: str) -> None:
        place = Path(tempfile.gettempdir())
        self.door, self.room = ((place / f"sdpo-tests-{run}.{name}").open("w") for name in ("door", "room"))

    @contextmanager
    def turn(self, *, is_alone: bool) -> Iterator[None]:
        """Who waits for the room keeps the door, so that nobody else goes in meanwhile."""
        fcntl.flock(self.door, fcntl.LOCK_EX)
        fcntl.flock(self.room, fcntl.LOCK_EX if is_alone else fcntl.LOCK_SH)
        fcntl.flock(self.door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self.room, fcntl.LOCK_UN)

    def close(self) -> None:
        for file in (self.door, self.room):
            file.close()
            Path(file.name).unlink(missing_ok=True)


_TURNS = pytest.StashKey[Turns]()


_SHARED = pytest.StashKey[ExitStack]()
INTEGRATION = Path(__file__).parent / "integration"


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # until everything is collected: see below
    if not hasattr(config, "workerinput") and _may_run_integration(config):
        from tests.session import shared_processes

        config.stash[_SHARED] = ExitStack()
        config.stash[_SHARED].enter_context(shared_processes())
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is not None:
        config.stash[_TURNS] = Turns(run)


def _may_run_integration(config: pytest.Config) -> bool:
    if config.option.collectonly or "not integration" in config.option.markexpr:
        return False
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args]
    return any(path.is_relative_to(INTEGRATION) or INTEGRATION.is_relative_to(path) for path in asked)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SHARED in config.stash:
        config.stash[_SHARED].close()
    if _TURNS in config.stash:
        config.stash[_TURNS].close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[object]:
    """Wait for the test's turn before its clock starts."""
    if _TURNS not in item.config.stash:
        return (yield)
    with item.config.stash[_TURNS].turn(is_alone=item.get_closest_marker("alone") is not None):
        return (yield)
