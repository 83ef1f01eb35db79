"""Which rows of a file are held out? A share by a hash of the questions, or those of another file; none is on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Protocol, TypeVar

SPLITS = ("train", "heldout")
_NUM_BUCKETS = 1 << 32


class Asks(Protocol):
    """A row that asks a question."""

    @property
    def place(self) -> str:
        """``"train.json:3"``, for messages."""
        ...

    @property
    def question(self) -> str:
        """What makes two rows the same question."""
        ...


RowT = TypeVar("RowT", bound=Asks)


def parted(
    rows: Sequence[RowT], heldout: Sequence[RowT] | None, *, env: str, share: float, seed: int
) -> dict[str, tuple[RowT, ...]]:
    """The rows of each split. Without ``heldout`` a ``share`` of ``rows`` is held out, drawn by the questions and ``seed``.

    Raises ValueError for a split without rows, and for a question on both sides. ``env`` is for messages.
    """
    if heldout is None:
        rows_of = {
            "train": tuple(row for row in rows if _position(row, seed) >= share),
            "heldout": tuple(row for row in rows if _position(row, seed) < share),
        }
        remedy = f"change heldout_share ({share!r}) or split_seed ({seed!r}), or add rows"
    else:
        rows_of = {"train": tuple(rows), "heldout": tuple(heldout)}
        remedy = "add rows"
    for split, rows_of_split in rows_of.items():
        if not rows_of_split:
            raise ValueError(f"{env} needs rows in both splits; {split} has none of {len(rows)}: {remedy}")
    _refuse_overlap(rows_of["train"], rows_of["heldout"])
    return rows_of


def check_share(env: str, heldout_path: str | None, share: float) -> None:
    """Raises ValueError for a share that leaves a side empty, where it is needed."""
    if heldout_path is None and not 0.0 < share < 1.0:
        raise ValueError(
            f"{env}'s heldout_share must lie between 0 and 1 (both splits need rows); "
            f"got {share!r}: try 0.1, or name a heldout_path"
        )


def check_split(env: str, split: str) -> None:
    """Raises ValueError for another split than train and heldout."""
    if split not in SPLITS:
        raise ValueError(f"{env}'s split must be one of {', '.join(SPLITS)}; got {split!r}")


def digest(text: str) -> bytes:
    """Four bytes that are the same in every process."""
    return blake2b(text.encode(), digest_size=4).digest()


def _position(row: Asks, seed: int) -> float:
    """A row's position in [0, 1), whatever else is in its file; rows with the same question have the same one."""
    return int.from_bytes(digest(f"{seed}/{row.question}")) / _NUM_BUCKETS


def _refuse_overlap(train: Iterable[Asks], heldout: Iterable[Asks]) -> None:
    trained = {row.question: row for row in train}
    for row in heldout:
        if row.question in trained:
            raise ValueError(
                "a question must not stand on both sides of the split (it would be trained on and then examined); "
                f"{row.place} asks what {trained[row.question].place} asks: remove one of them"
            )
