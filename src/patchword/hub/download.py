"""Models on the hub (`hf://org/name`), downloaded through huggingface_hub's own cache.

Cache location, token, endpoint and offline mode use huggingface_hub's variables
(HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Offline, this module reads the cache
directly, by the layout that huggingface_hub documents (refs/, snapshots/): its own functions may
open a socket even with `local_files_only`, to renew a token or to identify the caller.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from patchword.errors import CheckpointError, PatchwordError
from patchword.hub.files import Choice, choose, shards_of
from patchword.hub.names import COMMIT, HubName, parse


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """path: the weights file (or the index of several shards), next to its config files.
    revision: the full commit hash. source: the name with that hash, which is permanent.
    """

    path: Path
    revision: str
    source: str


def fetch(name: str | HubName, *, offline: bool = False) -> Fetched:
    """The files of a model: configs and one weights file, from the hub or its cache.

    offline: use cached files only and open no socket, as with HF_HUB_OFFLINE=1.
    Raises: CheckpointError, or OutputError for the cache, each with a fix.
    """
    from huggingface_hub import constants

    wanted = parse(name) if isinstance(name, str) else name
    if offline or constants.HF_HUB_OFFLINE:
        return _from_cache(wanted)
    from patchword.hub.errors import Unreachable, explaining

    try:
        with explaining(wanted, is_cached=lambda: _is_cached(wanted)) as stage:
            return _download(wanted, stage)
    except Unreachable:
        # A commit never changes, so the cached copy equals what the hub would send.
        if wanted.is_pinned and _is_cached(wanted):
            return _from_cache(wanted)
        raise


def _download(wanted: HubName, stage: list[str]) -> Fetched:
    """stage: collects the name of each file whose download starts, for messages."""
    from importlib.metadata import version

    from huggingface_hub import constants
    from huggingface_hub.hf_api import HfApi

    from patchword.hub.errors import without_bar

    api = HfApi(library_name="patchword", library_version=version("patchword"))
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(wanted.repo, revision=wanted.revision or None, timeout=timeout)
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit):
        raise ValueError("the response has no commit")
    files = [sibling.rfilename for sibling in info.siblings or ()]

    def get(file: str) -> Path:
        stage.append(file)
        return Path(api.hf_hub_download(wanted.repo, file, revision=commit))

    choice = choose(files, wanted)
    with without_bar():
        for file in choice.configs:
            get(file)
    path = get(choice.weights)
    for file in _shards(path, choice, wanted, files):
        get(file)
    _remember(wanted, commit)
    return _fetched(path, wanted, commit)


def _shards(path: Path, choice: Choice, wanted: HubName, there: Iterable[str]) -> list[str]:
    """Every file listed in the index. Raises: CheckpointError if one is missing or outside its folder."""
    if not choice.weights.endswith(".index.json"):
        return []
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{wanted}: {choice.weights} is not valid JSON ({error})", "download it again"
        ) from error
    return shards_of(index, choice.weights, str(wanted), there)


def _fetched(path: Path, wanted: HubName, commit: str) -> Fetched:
    pinned = HubName(org=wanted.org, name=wanted.name, revision=commit, file=wanted.file)
    return Fetched(path=path, revision=commit, source=str(pinned))


def _remember(wanted: HubName, commit: str) -> None:
    """Record the commit of a branch or tag for offline use; called last, when all files are cached."""
    if wanted.revision == commit:
        return
    reference = _cache_folder(wanted) / "refs" / (wanted.revision or "main")
    part = reference.with_name(f"{reference.name}.{uuid.uuid4().hex[:8]}.tmp")
    # A shared cache may be read-only; the model still loads.
    with contextlib.suppress(OSError):
        if reference.is_file() and reference.read_text(encoding="utf-8").strip() == commit:
            return
        reference.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(commit, encoding="utf-8")
        os.replace(part, reference)


def _cache_folder(wanted: HubName) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{wanted.org}--{wanted.name}"


def _from_cache(wanted: HubName) -> Fetched:
    """Raises: CheckpointError that states what the cache lacks and how to get it."""
    folder = _cache_folder(wanted)
    commit = _cached_commit(wanted)
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise _not_cached(wanted, "is not" if not _commits(folder) else "exists only as another revision")
    files = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    try:
        choice = choose(files, wanted, complete=False)
        path = snapshot / PurePosixPath(choice.weights)
        _shards(path, choice, wanted, files)
    except CheckpointError as error:
        raise _not_cached(wanted, f"is incomplete: {error.message.removeprefix(f'{wanted}: ')},") from error
    return _fetched(path, wanted, commit)


def _is_cached(wanted: HubName) -> bool:
    try:
        _from_cache(wanted)
    except PatchwordError:
        return False
    return True


def _cached_commit(wanted: HubName) -> str:
    reference = _cache_folder(wanted) / "refs" / (wanted.revision or "main")
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = reference.read_text(encoding="utf-8").strip()
        return commit if COMMIT.fullmatch(commit) else ""
    return wanted.revision if wanted.is_pinned else ""


def _commits(folder: Path) -> list[str]:
    """The commits with any file in the cache; an interrupted download leaves empty folders."""
    return sorted(
        path.name
        for path in (folder / "snapshots").glob("*")
        if COMMIT.fullmatch(path.name) and any(file.is_file() for file in path.rglob("*"))
    )


def _not_cached(wanted: HubName, how: str) -> CheckpointError:
    folder = _cache_folder(wanted)
    commits = _commits(folder)
    known = f" (cached commits: {', '.join(commits[:3])})" if commits and how.startswith("exists") else ""
    return CheckpointError(
        f"{wanted} {how} in the cache {folder.parent}{known}, and offline mode downloads nothing",
        f"run the same command with network access (without --offline and HF_HUB_OFFLINE), then "
        f"copy the folder {folder.name} into {folder.parent}, or set HF_HUB_CACHE to its location",
    )
