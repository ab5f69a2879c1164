"""Resolve a name that is not a path to its weights file, downloading it if needed."""

from patchword.errors import CheckpointError
from patchword.hub.download import Fetched, fetch
from patchword.hub.names import HubName, is_hub
from patchword.hub.published import Release, find_release, is_release
from patchword.hub.urls import fetch_url
from patchword.weights.detector_card import LOAD_DETECTOR

# What reads the wrong kind would refuse it after loading, so refuse it before downloading hundreds of megabytes.
_DETECTORS = ("DETR", "YOLOS")


def fetch_named(name: str, *, offline: bool = False, detector: bool = False) -> Fetched | None:
    """The file of hf://org/name or of a published release; None if the name is neither.

    detector: whether boxes are wanted. Of a hub name, only its file tells what it holds.

    Raises: CheckpointError, also if several releases share a bare name.
    """
    if is_hub(name):
        return fetch(name, offline=offline)
    return fetch_release(find_release(name), offline=offline, detector=detector) if is_release(name) else None


def is_detector_release(name: str) -> bool | None:
    """Whether a published name is a detector's; None for other names. Raises: CheckpointError if several releases share it."""
    if is_hub(name) or not is_release(name):
        return None
    return find_release(name).family in _DETECTORS


def fetch_release(release: Release, *, offline: bool = False, detector: bool = False) -> Fetched:
    """The weights file of a published release. revision: its commit, or the sha256 that was checked."""
    place = release.place
    if (release.family in _DETECTORS) and not detector:
        raise CheckpointError(
            f"{release.name}: a {release.family} detector, which predicts boxes; it was not downloaded",
            LOAD_DETECTOR,
        )
    if detector and release.family not in _DETECTORS:
        raise CheckpointError(
            f"{release.name}: {release.family}, a model without boxes; it was not downloaded",
            "choose DETR or YOLOS, or read it with load",
        )
    if place.hub is not None:
        org, _, name = place.hub.partition("/")
        wanted = HubName(org=org, name=name, revision=place.revision or "", file=place.file or "")
        return fetch(wanted, offline=offline)
    if place.url is None:
        raise CheckpointError(
            f"{release.name}: its file has no public address",
            f"download it from {place.page} and pass the file"
            if place.page
            else "get it from its authors and pass the file",
        )
    path = fetch_url(place.url, sha256=place.sha256 or "", offline=offline)
    return Fetched(path=path, revision=place.sha256 or "", source=place.url)
