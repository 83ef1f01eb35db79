"""How the nodes of an allocation find the driver, and learn of its end: files in the run's folder, which all of them share.

The first node writes ``driver.json``, in which it counts up as long as it lives, and ``ray.json`` once its Ray is there. The
others read both; one that cannot take part writes ``failed-NODE.json``. No port has to be agreed on beforehand, and no node waits
for one that is gone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from sdpo.run.files import write_whole

BEAT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """What the driver says of itself."""

    node: str
    beat: int = 0
    """Counts up while it lives."""
    address: str | None = None
    """``host:port`` at which its Ray is joined; None before it is there."""
    token: str | None = field(default=None, repr=False)
    """The token that its Ray asks for."""
    ended: str | None = None
    """How the run ended; None while it goes on."""


@dataclass(slots=True)
class Meeting:
    """The files by which the nodes of a job meet; ``folder`` belongs to one start of one job."""

    folder: Path
    _driver: Driver | None = None
    """The record that this process, as the driver, wrote last; None elsewhere."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def held(self, node: str) -> Iterator[None]:
        """Be the driver ``node`` for the length of the block: say so, count up, and say at last how the run ended."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # for the token's sake
        self._driver = Driver(node=node)
        self._write()
        is_over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(is_over,), name="meeting", daemon=True)
        beating.start()
        ended = "it ended"
        try:
            yield
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise
        finally:
            is_over.set()
            beating.join()
            self._write(ended=ended)

    def announce(self, address: str, token: str | None) -> None:
        """Write down where the driver's Ray is joined, and the token that it then asks for."""
        write_whole(self.folder / "ray.json", json.dumps({"address": address, "token": token}))

    def read(self) -> Driver | None:
        """What the driver last said; None where nothing is there, or nothing whole."""
        try:
            driver = Driver(**json.loads((self.folder / "driver.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        with suppress(OSError, ValueError, TypeError):
            return replace(driver, **json.loads((self.folder / "ray.json").read_text()))
        return driver

    def fail(self, node: str, why: str) -> None:
        """Tell the driver that ``node`` cannot take part."""
        with suppress(OSError):  # the folder may be the very reason
            write_whole(self.folder / f"failed-{node}.json", json.dumps({"node": node, "why": why}))

    def failures(self) -> dict[str, str]:
        """Why nodes cannot take part, by their names."""
        found = {}
        for file in sorted(self.folder.glob("failed-*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(file.read_text())
                found[str(told["node"])] = str(told["why"])
        return found

    def _beat(self, is_over: threading.Event) -> None:
        while not is_over.wait(BEAT_S):
            self._write()

    def _write(self, *, ended: str | None = None) -> None:
        with self._lock, suppress(OSError):  # a full disk is told by the run itself; a beat that is missed is followed by another
            assert self._driver is not None, "the meeting is held"
            self._driver = replace(self._driver, beat=self._driver.beat + 1, ended=ended)
            said = {"node": self._driver.node, "beat": self._driver.beat, "ended": self._driver.ended}
            write_whole(self.folder / "driver.json", json.dumps(said))
