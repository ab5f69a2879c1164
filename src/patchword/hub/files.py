"""Choose the files of a hub model to download: configs and one weights file, never all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from patchword.errors import CheckpointError, UnsafeFile, near_text

# Files next to the weights that describe the architecture and preprocessing.
CONFIGS = ("config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json")
INDEX = ".index.json"
# The same weights are often published in several formats; the first of these is used.
_FIRST = (
    "model.safetensors",
    "model.safetensors" + INDEX,
    "last.safetensors",  # of an uploaded run folder
    "pytorch_model.bin",
    "pytorch_model.bin" + INDEX,
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
_OTHERS = (".npz", ".pth", ".pt", ".bin", ".ckpt")
# What trainers save with the same file endings.
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state", "random_states")


@dataclass(frozen=True, kw_only=True)
class Choice:
    weights: str
    configs: tuple[str, ...]


def choose(files: Iterable[str], wanted: Any, *, complete: bool = True) -> Choice:
    """Choose the weights file for `wanted` (a HubName) among `files`, and the configs next to it.
    complete: whether `files` lists the complete model, or only what is cached.

    Raises: CheckpointError that lists the candidates.
    """
    there = sorted(files)
    weights = wanted.file or _one_of(there, wanted)
    if weights not in there:
        raise CheckpointError(
            f"{wanted}: {_holds(complete)} no file {weights!r}{near_text(weights, there)}",
            f"specify one of its files: {_shown([f for f in there if _is_weights(f)] or there)}",
        )
    folder = PurePosixPath(weights).parent
    configs = tuple(str(folder / name) for name in CONFIGS if str(folder / name) in there)
    return Choice(weights=weights, configs=configs)


def _one_of(there: list[str], wanted: Any) -> str:
    top = [file for file in there if "/" not in file]
    for name in _FIRST:
        if name in top:
            return name
    for candidates in (
        [file for file in top if file.endswith(".safetensors" + INDEX)],
        [file for file in top if file.endswith(".safetensors")],
        [file for file in top if _is_weights(file)],
    ):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise _several(candidates, wanted, "weights files")
    if deeper := [file for file in there if _is_weights(file)]:
        raise _several(deeper, wanted, "weights files in folders")
    raise CheckpointError(
        f"{wanted}: it has no weights file that patchword reads (files: {_shown(there) or 'none'})",
        "choose a model with .safetensors, .bin, .pth or .npz weights",
    )


def _several(candidates: list[str], wanted: Any, what: str) -> CheckpointError:
    revision = f"@{wanted.revision}" if wanted.revision else ""
    return CheckpointError(
        f"{wanted}: it has {len(candidates)} {what}: {_shown(candidates)}",
        f"specify one of them, such as hf://{wanted.repo}{revision}/{candidates[0]}",
    )


def _is_weights(file: str) -> bool:
    name = PurePosixPath(file).name
    return name.endswith((".safetensors", *_OTHERS)) and not name.startswith(_NO_WEIGHTS)


def _holds(complete: bool) -> str:
    return "it has" if complete else "the cache has"


def _shown(files: list[str]) -> str:
    return ", ".join(files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "")


def shards_of(index: Any, index_file: str, name: str, there: Iterable[str]) -> list[str]:
    """The files listed in an index, by their path in the model, each once.

    Raises: UnsafeFile if one is outside the index's folder, CheckpointError if one is missing.
    """
    weight_map = index.get("weight_map") if isinstance(index, Mapping) else None
    if not isinstance(weight_map, Mapping) or not all(isinstance(f, str) for f in weight_map.values()):
        raise CheckpointError(
            f"{name}: {index_file} has no weight_map of tensors and files",
            "specify another of its weights files",
        )
    folder, known = PurePosixPath(index_file).parent, set(there)
    shards = []
    for file in sorted(set(weight_map.values())):
        if "\\" in file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
            raise UnsafeFile(
                f"{name}: {index_file} lists {file!r}, which is outside its folder", "do not use this model"
            )
        if str(folder / file) not in known:
            raise CheckpointError(
                f"{name}: {index_file} lists {file!r}, which is missing",
                "specify another of its weights files",
            )
        shards.append(str(folder / file))
    return shards
