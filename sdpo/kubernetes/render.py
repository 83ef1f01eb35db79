"""``sdpo launch render``: from the words of ``sdpo train`` to a manifest that runs them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import yaml

from sdpo.config import ClusterConfig
from sdpo.config.compose import train_config
from sdpo.errors import UserError, without_credentials
from sdpo.kubernetes.manifests import manifest
from sdpo.kubernetes.names import Kind
from sdpo.run.files import write_whole

HEADER = "# Written by `sdpo launch render`: change its words and render again, rather than this file.\n"
_FIELDS = frozenset(field.name for field in dataclasses.fields(ClusterConfig)) - {"address"}


def run_launch(words: Sequence[str]) -> int:
    """``sdpo launch render``. Raises UserError."""
    if not words or words[0] != "render":
        raise UserError(f"sdpo launch can render; got {' '.join(words)!r}. See sdpo launch --help.")
    return run_render(words[1:])


def run_render(words: Sequence[str]) -> int:
    """Write the manifest to ``to=FILE``, or to standard output. Returns the exit code. Raises UserError."""
    kind, to, others = _told_apart(words)
    text = rendered(others, kind)
    if to is None:
        print(text, end="")
        return 0
    file = Path(to).expanduser()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
    except OSError as error:
        raise UserError(f"to= must be a file that can be written; {to!r} is not ({error}). Name another.") from error
    print(f"Wrote {file}. Next: kubectl apply -f {file}")
    return 0


def rendered(words: Sequence[str], kind: Kind) -> str:
    """The manifest of a run that ``sdpo train`` would start with these words. Raises UserError."""
    for word in words:
        if word.startswith("--"):
            raise UserError(f"sdpo launch render takes keys of sdpo train, as in tracking.quiet=true; got {word!r}.")
        if without_credentials(word) != word:
            raise UserError(
                "a manifest holds no passwords, since whoever may read the job reads them; got one in the address of "
                f"{word.partition('=')[0]}. Leave it out, and name a Secret with MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in cluster.secrets."
            )
    config = train_config(words)
    described = manifest(config, ["sdpo", "train", *words_of_the_job(words)], kind)
    return HEADER + yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=10**6)


def words_of_the_job(words: Sequence[str]) -> list[str]:
    """The words of the same run for the loop in the head's pod: it joins the Ray that is there, and knows nothing of pods."""
    kept = [word for word in words if not _is_of_pods(word)]
    return [*kept, "cluster=ray", "cluster.address=auto"]


def _is_of_pods(word: str) -> bool:
    key = word.partition("=")[0].lstrip("+~")
    group, dot, name = key.partition(".")
    return group == "cluster" and (not dot or name.partition(".")[0] not in _FIELDS)


def _told_apart(words: Sequence[str]) -> tuple[Kind, str | None, list[str]]:
    """``kind=``, ``to=``, and the words of the run."""
    own: dict[str, str] = {}
    others: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key in ("kind", "to"):
            own[key] = value
        else:
            others.append(word)
    kinds = {kind.value: kind for kind in Kind}
    name = own.get("kind", Kind.RayJob.value)
    if name not in kinds:
        raise UserError(f"kind must be one of {', '.join(kinds)}; got {name!r}.")
    return kinds[name], own.get("to"), others
