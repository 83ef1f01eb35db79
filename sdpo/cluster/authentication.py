"""Who may talk to a Ray that this job brings up: processes that know its token, so nobody else on the network runs code there.

``ray start`` asks for a token where it finds one. ``ray.init`` with an address sends none unless it is told to (seen with 2.60).
So both are told. A ``RAY_AUTH_MODE`` that is set already holds, and tokens are then the user's own affair.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # neither is in its stub

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def new_token() -> str | None:
    """A token for a Ray that is to be started; None where the user has decided otherwise (``RAY_AUTH_MODE``)."""
    return None if _MODE in os.environ else secrets.token_hex(32)


def environment(token: str | None) -> dict[str, str]:
    """The environment variables of a process that asks for the token, or sends it; none without a token."""
    return {} if token is None else {_MODE: "token", _TOKEN: token}


@contextmanager
def sending(token: str | None) -> Iterator[None]:
    """Have this process send the token, for the length of the block."""
    ours = environment(token)
    os.environ.update(ours)
    _read_again()
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
        _read_again()


def _read_again() -> None:
    """Have Ray read the environment again, which it read when it was imported."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
