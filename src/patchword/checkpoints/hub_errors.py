"""What goes wrong between here and the hub, each said in two lines; huggingface_hub kept quiet meanwhile."""

import contextlib
import errno
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.logging import get_verbosity, set_verbosity
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from patchword.errors import CheckpointError, OutputError, PatchwordError, near_text

if TYPE_CHECKING:
    from patchword.checkpoints.hub_name import HubName

LOG_IN = "log in: `hf auth login`, or set HF_TOKEN"
AGAIN = "run it again; files that came whole are kept"
# The HTTP library's own root, whichever it is (httpx, httpx2, requests): huggingface_hub derives from it.
_HTTP_ERRORS: tuple[type[Exception], ...] = tuple(
    base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError" and issubclass(base, Exception)
)
_FAILURES: tuple[type[Exception], ...] = (
    *_HTTP_ERRORS,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    UserWarning,
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Unreachable(CheckpointError):
    """The hub gave no answer at all, or none that counts."""


@contextlib.contextmanager
def explaining(wanted: "HubName", *, is_cached: Callable[[], bool]) -> Iterator[list[str]]:
    """Turns what huggingface_hub raises within into errors of ours. Gives the list of files begun."""
    begun: list[str] = []
    try:
        with _quiet():
            yield begun
    except PatchwordError:
        raise
    except _FAILURES as error:
        raise _explain(error, wanted, begun[-1] if begun else "", is_cached) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No log lines and warnings between ours, nothing sent but what is asked; too little room is an error.

    Its request for a list of programs that may be calling, and their name in each request, count
    as telemetry, which HF_HUB_DISABLE_TELEMETRY turns off; nobody asked for them here.
    """
    level, telemetry = get_verbosity(), constants.HF_HUB_DISABLE_TELEMETRY
    # Who has asked for more than warnings (HF_HUB_VERBOSITY, HF_DEBUG) still gets it.
    if level >= logging.WARNING:
        set_verbosity(logging.CRITICAL)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="Not enough free disk space")
            yield
    finally:
        set_verbosity(level)
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry


@contextlib.contextmanager
def without_bar() -> Iterator[None]:
    """No progress bar meanwhile: a config is there before anybody has read its name."""
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _explain(
    error: BaseException, wanted: "HubName", file: str, is_cached: Callable[[], bool]
) -> PatchwordError:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, RepositoryNotFoundError | DisabledRepoError):
        return _no_access(error, wanted)
    if isinstance(error, RevisionNotFoundError):
        return _no_revision(wanted)
    if isinstance(error, EntryNotFoundError):
        return CheckpointError(
            f"{wanted}: the hub lists {file!r} but does not have it", "try again later, or name another file"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status is not None:
        return _refused(error, status, wanted)
    if isinstance(error, UserWarning):
        return _no_room(wanted, file, _first_line(error).rstrip("."))
    # An error of the network names no file.
    if isinstance(error, OSError) and (error.errno in _NO_ROOM or error.filename is not None):
        return _no_room(wanted, file, error.strerror or str(error))
    if isinstance(error, (*_HTTP_ERRORS, OSError)):
        return _broken_off(error, wanted, file) if file else _no_network(error, wanted, is_cached)
    if not file:
        return CheckpointError(
            f"{wanted}: {constants.ENDPOINT} does not answer as a hub does ({_first_line(error)})",
            "check HF_ENDPOINT, and whether a log-in page of the network stands in between",
        )
    return _broken_off(error, wanted, file)


def _no_access(error: Any, wanted: "HubName") -> CheckpointError:
    """401, 403 and 404 of a model. The hub hides private models, so some cannot be told from missing ones."""
    status, had_token = error.response.status_code, "authorization" in error.response.request.headers
    page = f"{constants.ENDPOINT}/{wanted.repo}"
    if isinstance(error, DisabledRepoError):
        return CheckpointError(f"{wanted}: the hub has closed this model ({status})", "choose another model")
    if isinstance(error, GatedRepoError) and had_token and status != 401:
        return CheckpointError(
            f"{wanted}: a gated model, and the account of your token has not been let in ({status})",
            f"open {page} with that account and accept its terms, then try again",
        )
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{wanted}: a gated model, for those alone who accept its terms ({status})",
            f"open {page} and accept its terms, then {LOG_IN}",
        )
    if had_token:
        return CheckpointError(
            f"{wanted}: no such model at {constants.ENDPOINT}, or a private one that your token may not read "
            f"({status})",
            "check the spelling; of a private model, use a token of an account that may read it",
        )
    return CheckpointError(
        f"{wanted}: no such model at {constants.ENDPOINT}, or a private one ({status})",
        f"check the spelling; if the model is private, {LOG_IN}",
    )


def _no_revision(wanted: "HubName") -> CheckpointError:
    from huggingface_hub.hf_api import HfApi

    names: list[str] = []
    # Only to help; without the list the message still says what is wrong.
    with contextlib.suppress(*_HTTP_ERRORS, OSError, ValueError, KeyError, TypeError), _quiet():
        refs = HfApi().list_repo_refs(wanted.repo)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
    known = f"; it has {', '.join(names[:8])}{'' if len(names) <= 8 else ' and more'}" if names else ""
    return CheckpointError(
        f"{wanted}: the model has no revision {wanted.revision!r}{near_text(wanted.revision, names)}{known}",
        "name a branch, a tag or a full commit hash that it has",
    )


def _refused(error: HfHubHTTPError, status: int, wanted: "HubName") -> CheckpointError:
    said = f"{status}{': ' + error.server_message if error.server_message else ''}"
    where = f"{wanted}: {constants.ENDPOINT}"
    if status == 401:
        return CheckpointError(
            f"{where} does not accept your token ({said})",
            "log in again: `hf auth login`, or renew or unset HF_TOKEN",
        )
    if status in (403, 451):
        return CheckpointError(
            f"{where} does not let your token read this ({said})",
            f"accept the terms on {constants.ENDPOINT}/{wanted.repo}, or use a token that may read the model",
        )
    if status == 429:
        return CheckpointError(
            f"{where} has had too many requests from here ({said})",
            f"wait a few minutes; with an account more are allowed: {LOG_IN}",
        )
    if status >= 500:
        return Unreachable(
            f"{where} is out of order ({said})",
            "try again later; --offline takes a model that is in the cache",
        )
    return CheckpointError(f"{where} refuses ({said})", "check the name, and HF_ENDPOINT where it is set")


def _no_room(wanted: "HubName", file: str, reason: str) -> OutputError:
    return OutputError(
        f"{wanted}: {file or 'it'} cannot be kept in the cache {constants.HF_HUB_CACHE} ({reason})",
        "make room there, or let HF_HOME name a folder with room where you may write",
    )


def _broken_off(error: BaseException, wanted: "HubName", file: str) -> CheckpointError:
    return CheckpointError(f"{wanted}: the download of {file} broke off ({_first_line(error)})", AGAIN)


def _no_network(error: BaseException, wanted: "HubName", is_cached: Callable[[], bool]) -> CheckpointError:
    if is_cached():
        fix = "use the copy in the cache: add --offline"
    elif "HF_ENDPOINT" in os.environ:
        fix = "check the network and the address in HF_ENDPOINT; the model is not in the cache"
    else:
        fix = "check the network, or let HF_ENDPOINT name a mirror; the model is not in the cache"
    return Unreachable(f"{wanted}: {constants.ENDPOINT} cannot be reached ({_first_line(error)})", fix)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
