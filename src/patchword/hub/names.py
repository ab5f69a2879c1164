"""Parse the name of a hub model, `hf://org/name`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from patchword.errors import CheckpointError

SCHEME = "hf://"
EXAMPLES = "write hf://org/name, hf://org/name@revision or hf://org/name@revision/folder/file.safetensors"
# The hub's rule for names: letters, digits, and - _ . between them; at most 96 characters.
_PART = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
# Hub references that contain a slash; any other revision spells it %2F.
_REFERENCE = re.compile(r"refs/(?:pr/\d+|convert/\w+)|[^/]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
_NOT_MODELS = ("datasets", "spaces", "buckets", "kernels", "models")


@dataclass(frozen=True, kw_only=True)
class HubName:
    """A model on the hub. revision: branch, tag or commit; "" is main. file: "" lets `choose` decide."""

    org: str
    name: str
    revision: str = ""
    file: str = ""

    @property
    def repo(self) -> str:
        return f"{self.org}/{self.name}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, which never changes."""
        return COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = self.revision if self.revision.startswith("refs/") else self.revision.replace("/", "%2F")
        return f"{SCHEME}{self.repo}{revision and '@' + revision}{self.file and '/' + self.file}"


def is_hub(name: str) -> bool:
    return name.startswith(SCHEME)


def parse(name: str) -> HubName:
    """Parse hf://org/name[@revision][/file], huggingface_hub's form; a revision at the end is accepted too.

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
        return f"not a hub name: it does not start with {SCHEME}"
    if org in _NOT_MODELS:
        return f"the hub's {org} are not supported: give a model, without a prefix"
    if not org or not repo:
        return "a hub name has two parts, organisation and model, and one is missing"
    for part in (org, repo):
        if not _PART.fullmatch(part):
            return f"{part!r} is not a valid organisation or model name"
    if at and not _is_inside(unquote(revision)):
        return f"{revision!r} is not a valid revision"
    if file and not _is_inside(file):
        return f"{file!r} is not a valid file name"
    return ""


def _is_inside(path: str) -> bool:
    """A relative path that stays inside its folder and has only valid characters."""
    parts = path.split("/")
    return all(part not in ("", ".", "..") for part in parts) and re.search(r"[@\\:\s]", path) is None
