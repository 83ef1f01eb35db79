"""Starts what the session's tests share, in the process that deals the tests out, if tests are run that need it."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

_at_end = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.option.collectonly or "not integration" in config.option.markexpr:
        return
    from tests.session import shared_processes

    _at_end.enter_context(shared_processes())


def pytest_unconfigure() -> None:
    _at_end.close()
