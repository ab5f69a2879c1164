"""`hf://org/name`: what the name says, and the files behind it, through huggingface_hub's own cache.

The place of the cache, the token, the address of the hub and the offline variable are
huggingface_hub's (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Offline only files
are looked at, by the layout of the cache that huggingface_hub documents (refs/, snapshots/): its own
functions may open a socket even with `local_files_only`, to renew a token or to say who calls.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from patchword.checkpoints.hub_files import Choice, choose, shards_of
from patchword.checkpoints.hub_name import COMMIT, HubName, parse
from patchword.errors import CheckpointError, PatchwordError


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """path: the weights file (of several shards, their index) among its config files.

    revision: the full commit hash. source: the name with that hash, good for ever.
    """

    path: Path
    revision: str
    source: str


def fetch(name: str | HubName, *, offline: bool = False) -> Fetched:
    """The files of a model: configs and one weights file, from the hub or its cache.

    offline: look at the cache alone and open no socket; HF_HUB_OFFLINE=1 says the same.
    Raises: CheckpointError, OutputError (of the cache) that say what to do.
    """
    from huggingface_hub import constants

    wanted = parse(name) if isinstance(name, str) else name
    if offline or constants.HF_HUB_OFFLINE:
        return _from_cache(wanted)
    from patchword.checkpoints.hub_errors import Unreachable, explaining

    try:
        with explaining(wanted, is_cached=lambda: _is_cached(wanted)) as stage:
            return _download(wanted, stage)
    except Unreachable:
        # A commit never changes, so its copy is as good as what the hub would have sent.
        if wanted.is_pinned and _is_cached(wanted):
            return _from_cache(wanted)
        raise


def _download(wanted: HubName, stage: list[str]) -> Fetched:
    """stage: gets the name of each file that is begun, for messages."""
    from importlib.metadata import version

    from huggingface_hub import constants
    from huggingface_hub.hf_api import HfApi

    from patchword.checkpoints.hub_errors import without_bar

    api = HfApi(library_name="patchword", library_version=version("patchword"))
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = api.model_info(wanted.repo, revision=wanted.revision or None, timeout=timeout)
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit):
        raise ValueError("the answer names no commit")
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
    """Every file that the index names beside it. Raises: CheckpointError where one is missing or elsewhere."""
    if not choice.weights.endswith(".index.json"):
        return []
    try:
        index: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{wanted}: {choice.weights} is no JSON ({error})", "get it again") from error
    return shards_of(index, choice.weights, str(wanted), there)


def _fetched(path: Path, wanted: HubName, commit: str) -> Fetched:
    pinned = HubName(org=wanted.org, name=wanted.name, revision=commit, file=wanted.file)
    return Fetched(path=path, revision=commit, source=str(pinned))


def _remember(wanted: HubName, commit: str) -> None:
    """Note which commit a branch or tag was, so that it is found offline; last, when all files are there."""
    if wanted.revision == commit:
        return
    reference = _cache_folder(wanted) / "refs" / (wanted.revision or "main")
    part = reference.with_name(f"{reference.name}.{uuid.uuid4().hex[:8]}.tmp")
    # A cache that many share may be read-only; the model loads all the same.
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
    """Raises: CheckpointError that says what the cache lacks and how it gets there."""
    folder = _cache_folder(wanted)
    commit = _cached_commit(wanted)
    snapshot = folder / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise _not_cached(wanted, "is not" if not _commits(folder) else "is there only as another revision")
    files = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
    try:
        choice = choose(files, wanted, complete=False)
        path = snapshot / PurePosixPath(choice.weights)
        _shards(path, choice, wanted, files)
    except CheckpointError as error:
        raise _not_cached(wanted, f"is not whole: {error.message.removeprefix(f'{wanted}: ')},") from error
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
    """The commits of which the cache has anything; a download that broke off leaves empty folders."""
    return sorted(
        path.name
        for path in (folder / "snapshots").glob("*")
        if COMMIT.fullmatch(path.name) and any(file.is_file() for file in path.rglob("*"))
    )


def _not_cached(wanted: HubName, how: str) -> CheckpointError:
    folder = _cache_folder(wanted)
    commits = _commits(folder)
    known = f" (cached commits: {', '.join(commits[:3])})" if commits and how.startswith("is there") else ""
    return CheckpointError(
        f"{wanted} {how} in the cache {folder.parent}{known}, and offline nothing is fetched",
        f"fetch it where there is a network (the same command without --offline and HF_HUB_OFFLINE), then "
        f"copy the folder {folder.name} into {folder.parent}, or let HF_HUB_CACHE name where it lies",
    )
