"""From a name that is no path to the weights file that it means, fetched where that is needed."""

from patchword.checkpoints import hub
from patchword.checkpoints.hub import Fetched
from patchword.checkpoints.hub_name import HubName, is_hub
from patchword.checkpoints.published import Release, find_release, is_release
from patchword.checkpoints.urls import fetch_url
from patchword.errors import CheckpointError

# Listed as published, and refused once their tensors are seen: hundreds of megabytes need not be fetched for that.
_DETECTORS = ("DETR", "YOLOS")


def fetch_named(name: str, *, offline: bool = False) -> Fetched | None:
    """The file of hf://org/name, or of a published release; None where the name is neither.

    Raises: CheckpointError, also where a bare name is that of several releases.
    """
    if is_hub(name):
        return hub.fetch(name, offline=offline)
    return fetch_release(find_release(name), offline=offline) if is_release(name) else None


def fetch_release(release: Release, *, offline: bool = False) -> Fetched:
    """The weights file of a published release. revision: its commit, or the sha256 that was checked."""
    place = release.place
    if release.family in _DETECTORS:
        raise CheckpointError(
            f"{release.name}: a {release.family} detector; this patchword has no detection yet, and did not fetch it",
            "use its authors' code or transformers until a later patchword reads it",
        )
    if place.hub is not None:
        org, _, name = place.hub.partition("/")
        wanted = HubName(org=org, name=name, revision=place.revision or "", file=place.file or "")
        return hub.fetch(wanted, offline=offline)
    if place.url is None:
        raise CheckpointError(
            f"{release.name}: no address of its file is public",
            f"get it at {place.page} and give the file"
            if place.page
            else "get it from its authors and give the file",
        )
    path = fetch_url(place.url, sha256=place.sha256 or "", offline=offline)
    return Fetched(path=path, revision=place.sha256 or "", source=place.url)
