"""Resolve what a user calls a model to one weights file."""

import re
from dataclasses import dataclass
from pathlib import Path

from patchword.containers.folder import ENDINGS
from patchword.containers.others import other_folder
from patchword.errors import CheckpointError, near_text, plural
from patchword.weights.card import STANDS_FOR_RUN
from patchword.weights.native import is_native, read_card

LAST, BEST = "last.safetensors", "best.safetensors"
_FOREIGN = (*(f"*{ending}" for ending in ENDINGS), "*.index.json")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The file, and the reason if there was a choice ("" otherwise).
    source: a permanent name of the file, if it has one: "hf://org/name@<commit>".
    """

    path: Path
    why: str = ""
    source: str = ""


def find_weights(given: str | Path, *, offline: bool = False, detector: bool = False) -> Found:
    """The weights file of a run folder, a folder in any layout (returned as it is: its index or names tell which
    files belong), the file itself, a hub name or a published release. An existing path takes precedence over names.
    offline: use cached files only and open no socket. detector: whether boxes are wanted, before anything is downloaded.

    Raises: CheckpointError that states what is there instead, or suggests the nearest name.
    """
    if given == "":  # as a path it would be the current folder
        raise CheckpointError("the model path is empty", "give a run folder or a weights file")
    path = Path(given).expanduser()
    try:
        is_dir, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except PermissionError as error:
        raise CheckpointError(
            f"{path}: no permission to read it", "change the permissions of its folder"
        ) from error
    if is_dir:
        return _in_folder(path)
    if is_file:
        return Found(path=path)
    if exists:
        raise CheckpointError(f"{path}: this is a device or pipe, not a weights file", "give a weights file")
    if isinstance(given, str) and (found := _fetched(given, offline=offline, detector=detector)):
        return found
    raise CheckpointError(
        f"{path}: no such weights file or run folder{_near(path) or _near_published(given)}",
        f"give a run folder or a weights file that exists{_on_the_hub(str(given))}",
    )


def _fetched(name: str, *, offline: bool, detector: bool) -> Found | None:
    from patchword.hub.fetch import fetch_named

    fetched = fetch_named(name, offline=offline, detector=detector)
    return Found(path=fetched.path, why=fetched.source, source=fetched.source) if fetched else None


def _stands_for_run(best: Path) -> bool:
    """Whether the best weights of a run were chosen on other images than it is scored on, so that they are its result."""
    try:
        return bool(read_card(best).provenance.facts.get(STANDS_FOR_RUN))
    except (CheckpointError, OSError):
        return False


def _in_folder(folder: Path) -> Found:
    if (folder / LAST).is_file():
        why = f"{LAST}, the EMA weights of the last epoch"
        if _stands_for_run(folder / BEST):
            return Found(
                path=folder / BEST, why=f"{BEST}, the EMA weights with the best score on watched images"
            )
        if (folder / BEST).is_file():
            why += f"; {BEST} next to it was selected on the evaluation images"
        return Found(path=folder / LAST, why=why)
    own = sorted(file for file in folder.glob("*.safetensors") if is_native(file))
    if len(own) == 1:
        return Found(path=own[0], why=f"{own[0].name}, the only weights file there")
    if own:
        names = ", ".join(file.name for file in own[:4])
        raise CheckpointError(f"{folder}: {len(own)} weights files ({names})", "specify one of them")
    if any(next(folder.glob(pattern), None) for pattern in _FOREIGN):
        return Found(path=folder)
    if (folder / "config.toml").is_file():
        raise CheckpointError(
            f"{folder}: this run has no weights yet: it ended before its first epoch",
            f"resume it: patchword train --resume {folder}",
        )
    inside = [p.parent.name for p in sorted(folder.glob(f"*/{LAST}"))]
    if inside:
        raise CheckpointError(
            f"{folder}: this folder holds {plural(len(inside), 'run')} ({', '.join(inside[:4])})",
            f"specify one of them, such as {folder / inside[-1]}",
        )
    if (other := other_folder(folder)) is not None:
        raise CheckpointError(f"{folder}: {other[0]}, which patchword does not read", other[1])
    raise CheckpointError(
        f"{folder}: this folder has no weights ({LAST} is missing)", "give a run folder or a weights file"
    )


def _near_published(given: str | Path) -> str:
    from patchword.hub.published import near_releases

    is_name = isinstance(given, str) and not given.lower().endswith(ENDINGS)
    found = near_releases(str(given)) if is_name else []
    return f" (similar published names: {', '.join(map(repr, found))})" if found else ""


def _on_the_hub(given: str) -> str:
    """A hint if the name looks like a hub model: org/name, or the address of its page."""
    page = re.fullmatch(r"(?:https?:/{1,2}[^/]+/)?([\w-]+/[\w.-]+?)(?:/tree/([^/]+))?/?", given, re.ASCII)
    if page is None or Path(given).suffix in (".safetensors", ".pth", ".pt", ".bin", ".npz"):
        return ""
    return f"; for a hub model, write hf://{page[1]}{'@' + page[2] if page[2] else ''}"


def _near(path: Path) -> str:
    """The nearest existing name for the first missing part of `path`."""
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    try:
        there = [p.name for p in missing.parent.iterdir()]
    except OSError:
        return ""
    return near_text(missing.name, there)
