"""`hf://org/name`: what the name says, and the files behind it, through huggingface_hub's own cache.

The place of the cache, the token, the address of the hub and the offline variable are
huggingface_hub's (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). Offline only files
are looked at, by the layout of the cache that huggingface_hub documents (refs/, snapshots/): its own
functions may open a socket even with `local_files_only`, to renew a token or to say who calls.
"""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from patchword.checkpoints.hub_files import Choice, choose, shards_of
from patchword.errors import CheckpointError, PatchwordError

SCHEME = "hf://"
EXAMPLES = "write hf://org/name, hf://org/name@revision or hf://org/name@revision/folder/file.safetensors"
# What the hub itself allows in names: letters, digits, - _ . between letters or digits, 96 at most.
_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
# References of the hub that contain a slash; in any other revision it is written %2F.
_REFERENCE = re.compile(r"refs/(?:pr/\d+|convert/\w+)|[^/]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOT_MODELS = ("datasets", "spaces", "buckets", "kernels", "models")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A model of the hub. revision: branch, tag or commit; "" is main. file: "" lets `choose` decide."""

    org: str
    name: str
    revision: str = ""
    file: str = ""

    @property
    def repo(self) -> str:
        return f"{self.org}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether it names one commit for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = self.revision if self.revision.startswith("refs/") else self.revision.replace("/", "%2F")
        return f"{SCHEME}{self.repo}{revision and '@' + revision}{self.file and '/' + self.file}"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """path: the weights file (of several shards, their index) among its config files.

    revision: the full commit hash. source: the name with that hash, good for ever.
    """

    path: Path
    revision: str
    source: str


def is_hub(name: str) -> bool:
    return name.startswith(SCHEME)


def parse(name: str) -> HubName:
    """hf://org/name[@revision][/file], the form of huggingface_hub; a revision at the end is understood too.

    Raises: CheckpointError that shows the form.
    """
    before, at, after = name.removeprefix(SCHEME).partition("@")
    org, _, rest = before.partition("/")
    repo, _, file = rest.partition("/")
    revision = ""
    if at:
        found = _REFERENCE.match(after)
        revision = after if file or found is None else found[0]
        file = file or after[len(revision) :].removeprefix("/")
    if problem := _problem(name, org, repo, bool(at), revision, file):
        raise CheckpointError(f"{name}: {problem}", EXAMPLES)
    return HubName(org=org, name=repo, revision=unquote(revision), file=file)


def _problem(name: str, org: str, repo: str, at: bool, revision: str, file: str) -> str:
    """What is wrong with the name, or ""."""
    if not is_hub(name):
        return f"no name of the hub: it does not begin with {SCHEME}"
    if org in _NOT_MODELS:
        return f"the hub's {org} are not meant here: only models are named, and without a word in front"
    if not org or not repo:
        return "a name of the hub has two parts, the organisation and the model, and one is missing"
    for part in (org, repo):
        if not _PART.fullmatch(part):
            return f"{part!r} can be neither an organisation nor a model of the hub"
    if at and not _is_inside(unquote(revision)):
        return f"{revision!r} cannot be a revision"
    if file and not _is_inside(file):
        return f"{file!r} cannot be a file"
    return ""


def _is_inside(path: str) -> bool:
    """A relative path that stays where it is and has no characters that a name would not."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and re.search(r"[@\\:\s]", path) is None


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
    if not _COMMIT.fullmatch(commit):
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
        return commit if _COMMIT.fullmatch(commit) else ""
    return wanted.revision if wanted.is_pinned else ""


def _commits(folder: Path) -> list[str]:
    """The commits of which the cache has anything; a download that broke off leaves empty folders."""
    return sorted(
        path.name
        for path in (folder / "snapshots").glob("*")
        if _COMMIT.fullmatch(path.name) and any(file.is_file() for file in path.rglob("*"))
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
