"""Download a published file from its own address once, completely and verified, to huggingface_hub's asset cache."""

import contextlib
import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from patchword.errors import CheckpointError, OutputError, PatchwordError

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30
# torch.hub's convention: the name ends in the first eight digits of the content's sha256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def fetch_url(url: str, *, sha256: str = "", offline: bool = False) -> Path:
    """The file at `url`, from the cache if present.

    sha256: the expected hash; "" uses the one in the file name, if any.
    Raises: CheckpointError if it cannot be downloaded or has another hash, OutputError if it cannot be stored.
    """
    from huggingface_hub import constants

    path = _place(url)
    if path.is_file():
        return path
    if offline or constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{url} is not in the cache, and offline mode downloads nothing",
            f"download it elsewhere and save it as {path}",
        )
    promised = _HASH_IN_NAME.search(path.name)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explaining(url), _opened(url) as answer, part.open("wb") as file:
            digest = _copy(answer, file, path.name)
        expected = sha256 or (promised[1] if promised else "")
        if not digest.startswith(expected.lower()):
            raise CheckpointError(
                f"{url}: the content has sha256 {digest}, but the published one is {expected}",
                "download it from a source you trust, and pass the file",
            )
        os.replace(part, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written to the cache ({error.strerror or error})",
            "free some space there, or set HF_HOME to a writable folder with enough space",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return path


def _place(url: str) -> Path:
    """Its path in the cache: by host and path, so that equal names of two publishers do not collide."""
    from huggingface_hub import constants

    parts = urlsplit(url)
    steps = [
        re.sub(r"[^\w.-]", "_", unquote(step)) for step in (parts.netloc, *parts.path.split("/")) if step
    ]
    return Path(constants.HF_ASSETS_CACHE, "patchword", *(step for step in steps if step.strip(".")))


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Any]:
    request = urllib.request.Request(url, headers={"User-Agent": "patchword", "Accept-Encoding": "identity"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
        yield answer


def _copy(answer: Any, file: IO[bytes], name: str) -> str:
    """Write the complete response and return its sha256, with a progress bar on a terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    digest, total = hashlib.sha256(), int(answer.headers.get("Content-Length") or 0)
    done = 0
    bar = tqdm(total=total or None, unit="B", unit_scale=True, desc=name, disable=None)  # type: ignore[no-untyped-call]
    with bar:
        while chunk := answer.read(_CHUNK_BYTES):
            _write(file, chunk)
            digest.update(chunk)
            done += len(chunk)
            bar.update(len(chunk))
    if total and done != total:
        raise http.client.IncompleteRead(b"", total - done)
    return digest.hexdigest()


class _Disk(Exception):
    """Wraps a disk error so that it is not caught as a network error, which is an OSError too."""


def _write(file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise _Disk from error


@contextlib.contextmanager
def _explaining(url: str) -> Iterator[None]:
    try:
        yield
    except PatchwordError:
        raise
    except _Disk as error:
        assert error.__cause__ is not None
        raise error.__cause__ from None
    except urllib.error.HTTPError as error:
        raise CheckpointError(
            f"{url}: the server responds with {error.code} {error.reason}",
            "try again later, or download the file elsewhere and pass its path",
        ) from error
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise
        reason = getattr(error, "reason", error)
        raise CheckpointError(
            f"{url}: cannot be downloaded ({reason})",
            "check the network and run it again, or pass a local file",
        ) from error
