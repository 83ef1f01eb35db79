"""What can go wrong that is not a bug of ours; the command line prints either alone, without a traceback.

No sentence, file or page may show what logs in to a server: ``without_credentials``.
"""

from __future__ import annotations

import re

_USER = re.compile(
    r"://(?:[^\s/?#]{0,1000}@"  # user and password, to the last @ before the path
    r"|[^\s:/@]{0,1000}:(?![0-9]{1,5}(?:[/?#]|$))[^\s@]{0,1000}@(?:[^\s/?#@]{0,1000}@)?)"  # a password with / ? #, and no port
)
_SECRET = re.compile(
    r"([?&;][\w.-]{0,40}?(?:passw(?:or)?d|passphrase|pwd|token|secret|api_?key|access_?key|odbc_connect)[\w.-]{0,40}=)[^\s&;#'\"]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """``text`` with its addresses, but without the user information and the passwords and tokens in them."""
    if "://" not in text:
        return text
    return _SECRET.sub(r"\1***", _USER.sub("://", text))


class UserError(ValueError):
    """The user's to mend: the rule, what was found, what to do. Exit code 2."""


class MachineError(RuntimeError):
    """A process that died or did not answer: who waited for whom, and the end of its log. Exit code 1; the run can be resumed."""


class LearnerLost(MachineError):
    """A rank of the learner died or hangs, so that the others cannot go on: who and why, in the first line."""


class LearnerOutOfMemory(LearnerLost):
    """A rank of the learner was killed because its machine had no memory left."""


class OutOfMemory(UserError):
    """A machine had no memory left for the same work twice: a third time would end alike. Exit code 2; the run can be resumed."""


class NodeLost(MachineError):
    """A machine of the cluster is gone, and those that are left have no room for what ran there: which, in the first line."""


class Stopped(KeyboardInterrupt):
    """A signal asked for an end, and there is nothing to wait for. Exit code 128 + its number."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number
