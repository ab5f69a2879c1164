"""Turn errors of the hub into two-line messages, and keep huggingface_hub quiet meanwhile."""

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
    from patchword.hub.names import HubName

LOG_IN = "log in: `hf auth login`, or set HF_TOKEN"
AGAIN = "run the command again; complete files are kept"
# The root error of the HTTP library (httpx, httpx2 or requests): huggingface_hub derives from it.
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
    """The hub did not respond, or not validly."""


@contextlib.contextmanager
def explaining(wanted: "HubName", *, is_cached: Callable[[], bool]) -> Iterator[list[str]]:
    """Turn what huggingface_hub raises into our errors. Yields the list of started downloads."""
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
    """Silence log lines and warnings, disable telemetry, and raise an error if disk space is too low.

    Telemetry includes a request for a list of known calling programs, and their name in each
    request; HF_HUB_DISABLE_TELEMETRY turns both off.
    """
    level, telemetry = get_verbosity(), constants.HF_HUB_DISABLE_TELEMETRY
    # A more verbose log level (HF_HUB_VERBOSITY, HF_DEBUG) stays in effect.
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
    """Disable progress bars: a config is downloaded before anyone could read its name."""
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
            f"{wanted}: the hub lists {file!r} but does not have it",
            "try again later, or specify another file",
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status is not None:
        return _refused(error, status, wanted)
    if isinstance(error, UserWarning):
        return _no_room(wanted, file, _first_line(error).rstrip("."))
    # A network error does not include a file name.
    if isinstance(error, OSError) and (error.errno in _NO_ROOM or error.filename is not None):
        return _no_room(wanted, file, error.strerror or str(error))
    if isinstance(error, (*_HTTP_ERRORS, OSError)):
        return _broken_off(error, wanted, file) if file else _no_network(error, wanted, is_cached)
    if not file:
        return CheckpointError(
            f"{wanted}: {constants.ENDPOINT} does not respond like a hub ({_first_line(error)})",
            "check HF_ENDPOINT, and whether the network redirects to a log-in page",
        )
    return _broken_off(error, wanted, file)


def _no_access(error: Any, wanted: "HubName") -> CheckpointError:
    """Errors 401, 403 and 404 for a model. The hub hides private models, so they may look like missing ones."""
    status, had_token = error.response.status_code, "authorization" in error.response.request.headers
    page = f"{constants.ENDPOINT}/{wanted.repo}"
    if isinstance(error, DisabledRepoError):
        return CheckpointError(
            f"{wanted}: the hub has disabled this model ({status})", "choose another model"
        )
    if isinstance(error, GatedRepoError) and had_token and status != 401:
        return CheckpointError(
            f"{wanted}: this model is gated, and your account has no access yet ({status})",
            f"open {page} with that account and accept its terms, then try again",
        )
    if isinstance(error, GatedRepoError):
        return CheckpointError(
            f"{wanted}: this model is gated: you must accept its terms first ({status})",
            f"open {page} and accept its terms, then {LOG_IN}",
        )
    if had_token:
        return CheckpointError(
            f"{wanted}: no such model at {constants.ENDPOINT}, or a private one that your token cannot read "
            f"({status})",
            "check the spelling; for a private model, use a token with access to it",
        )
    return CheckpointError(
        f"{wanted}: no such model at {constants.ENDPOINT}, or a private one ({status})",
        f"check the spelling; if the model is private, {LOG_IN}",
    )


def _no_revision(wanted: "HubName") -> CheckpointError:
    from huggingface_hub.hf_api import HfApi

    names: list[str] = []
    # Optional: without the list the message still states the problem.
    with contextlib.suppress(*_HTTP_ERRORS, OSError, ValueError, KeyError, TypeError), _quiet():
        refs = HfApi().list_repo_refs(wanted.repo)
        names = [ref.name for ref in (*refs.branches, *refs.tags)]
    known = f"; it has {', '.join(names[:8])}{'' if len(names) <= 8 else ' and more'}" if names else ""
    return CheckpointError(
        f"{wanted}: the model has no revision {wanted.revision!r}{near_text(wanted.revision, names)}{known}",
        "specify an existing branch, tag or full commit hash",
    )


def _refused(error: HfHubHTTPError, status: int, wanted: "HubName") -> CheckpointError:
    detail = f"{status}{': ' + error.server_message if error.server_message else ''}"
    where = f"{wanted}: {constants.ENDPOINT}"
    if status == 401:
        return CheckpointError(
            f"{where} does not accept your token ({detail})",
            "log in again: `hf auth login`, or renew or unset HF_TOKEN",
        )
    if status in (403, 451):
        return CheckpointError(
            f"{where} does not allow your token to read this ({detail})",
            f"accept the terms on {constants.ENDPOINT}/{wanted.repo}, or use a token with access to the model",
        )
    if status == 429:
        return CheckpointError(
            f"{where} reports too many requests from this address ({detail})",
            f"wait a few minutes; accounts have a higher limit: {LOG_IN}",
        )
    if status >= 500:
        return Unreachable(
            f"{where} has a server error ({detail})",
            "try again later, or pass --offline to use a cached model",
        )
    return CheckpointError(
        f"{where} refuses the request ({detail})", "check the name, and HF_ENDPOINT if it is set"
    )


def _no_room(wanted: "HubName", file: str, reason: str) -> OutputError:
    return OutputError(
        f"{wanted}: {file or 'it'} cannot be written to the cache {constants.HF_HUB_CACHE} ({reason})",
        "free some space there, or set HF_HOME to a writable folder with enough space",
    )


def _broken_off(error: BaseException, wanted: "HubName", file: str) -> CheckpointError:
    return CheckpointError(f"{wanted}: the download of {file} was interrupted ({_first_line(error)})", AGAIN)


def _no_network(error: BaseException, wanted: "HubName", is_cached: Callable[[], bool]) -> CheckpointError:
    if is_cached():
        fix = "pass --offline to use the cached copy"
    elif "HF_ENDPOINT" in os.environ:
        fix = "check the network and the address in HF_ENDPOINT; the model is not in the cache"
    else:
        fix = "check the network, or set HF_ENDPOINT to a mirror; the model is not in the cache"
    return Unreachable(f"{wanted}: {constants.ENDPOINT} cannot be reached ({_first_line(error)})", fix)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
