"""Who may talk to a Ray that this job brings up: processes that know its token, so nobody else on the network runs code there.

``ray start`` asks for a token where it finds one, and ``ray.init`` with an address sends none unless it is told to (seen with
2.60); so both are told. Where ``RAY_AUTH_MODE`` is set, it holds, and tokens are the user's own affair.
"""

from __future__ import annotations

import os
import secrets

from ray._raylet import Config  # type: ignore[attr-defined]  # not in its stub

_MODE, _TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


def new_token() -> str | None:
    """For a Ray that is to be started; None where the user has decided otherwise."""
    return None if _MODE in os.environ else secrets.token_hex(32)


def use(token: str | None) -> None:
    """In this process and in those that it starts."""
    if token is not None:
        os.environ.update({_MODE: "token", _TOKEN: token})
        Config.initialize("")  # Ray has read the mode when it was imported
