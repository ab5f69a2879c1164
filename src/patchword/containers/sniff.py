"""Describe a file that cannot be read as weights, without ever unpickling it."""

import struct
import zipfile
from pathlib import Path

from patchword.containers.others import other_content, other_name, zip_of_others
from patchword.errors import CheckpointError, UnknownLayout, UnsafeFile

HEAD_BYTES = 512
# safetensors' own limit; a ViT header of any size has a few hundred kilobytes.
MAX_HEADER_BYTES = 100_000_000
_AGAIN = "download the file again"
_OWN = "give a weights file (.safetensors, .pth, .bin, .pt, .npz), its folder, or a run folder"
_LFS = b"version https://git-lfs.github.com/spec"
_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # pickled magic number of torch before 1.6
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<?xml")

# First bytes, what the file is, the fix.
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\xff\xd8\xff", "a JPEG image, not weights", "give MODEL first, then the images"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image, not weights", "give MODEL first, then the images"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras writes these)", _OWN),
    (b"\x1f\x8b", "compressed with gzip", "unpack it"),
    (b"\x93NUMPY", "a NumPy array, not weights", _OWN),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
)


def is_old_torch(head: bytes) -> bool:
    """Whether a file starts like those of torch before 1.6; since protocol 4 the pickle's length comes first."""
    return head[:1] == b"\x80" and _OLD_TORCH in (
        head[2 : 2 + len(_OLD_TORCH)],
        head[11 : 11 + len(_OLD_TORCH)],
    )


def zip_names(path: Path) -> list[str]:
    """List an archive. Raises: CheckpointError if it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    # zipfile raises each of these for some damaged archive.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        OverflowError,
        IndexError,
        struct.error,
    ) as error:
        raise CheckpointError(
            f"{path}: a PyTorch, NumPy or other zip file that is truncated or damaged", _AGAIN
        ) from error


def left_in_its_place(path: Path, head: bytes, size: int) -> CheckpointError | None:
    """The error for a failed download saved under any file name; None for anything else."""
    if size == 0:
        return CheckpointError(f"{path}: the file is empty", _AGAIN)
    if head.startswith(_LFS):
        return CheckpointError(
            f"{path}: a Git LFS pointer, not the file itself",
            f"download the file: git lfs pull --include {path.name!r}",
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        return CheckpointError(
            f"{path}: a web page (HTML), not the file", "download the file itself, not the page that shows it"
        )
    return None


def refuse(path: Path, head: bytes, size: int) -> CheckpointError:
    """The error for a file that is not safetensors; `head` holds its first bytes."""
    if (other := other_content(path, head)) is not None:
        return CheckpointError(f"{path}: {other[0]}, which patchword does not read", other[1])
    if (known := left_in_its_place(path, head, size)) is not None:
        return known
    if head.startswith(b"PK"):
        return _refuse_zip(path)
    for signature, what, fix in _SIGNATURES:
        if head.startswith(signature):
            return CheckpointError(f"{path}: {what}", fix)
    if is_old_torch(head):
        return _no_safetensors(path, "a PyTorch file")
    # Protocols 2 to 5 start like this; protocol 0 looks like text, and torch does not write it.
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        other = other_name(path)
        what = f"{other[0]}, " if other and "pickle" not in other[0] else ""
        return UnsafeFile(
            f"{path}: {what}a Python pickle, which could run any code and is not opened",
            "ask its author to save the tensors as .safetensors",
        )
    if head[257:262] == b"ustar":
        return CheckpointError(f"{path}: a tar archive", "unpack it")
    if size > 8 and head[8:9] != b"{" and head.strip(b"\0") and (other := other_name(path)) is not None:
        return CheckpointError(f"{path}: {other[0]}, which patchword does not read", other[1])
    return _refuse_shapeless(path, head, size)


def _refuse_shapeless(path: Path, head: bytes, size: int) -> CheckpointError:
    if not head.strip(b"\0"):
        return CheckpointError(f"{path}: the file has only zeros: the download was never finished", _AGAIN)
    if size < 9:
        return CheckpointError(f"{path}: truncated after {size} bytes", _AGAIN)
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        if path.suffix == ".json":
            return CheckpointError(f"{path}: JSON text, not weights", "give its folder, or the weights file")
        return CheckpointError(f"{path}: text, not weights", _OWN)
    if head[8:9] == b"{":
        return too_long_header(path, int.from_bytes(head[:8], "little"))
    return CheckpointError(f"{path}: not a weights file that patchword supports", _OWN)


def too_long_header(path: Path, length: int) -> CheckpointError:
    return CheckpointError(
        f"{path}: not safetensors: its header would have {length:,} bytes, but the format allows {MAX_HEADER_BYTES:,}",
        _AGAIN,
    )


def _no_safetensors(path: Path, what: str) -> CheckpointError:
    """For callers that read only safetensors; `open_stored` also reads these formats."""
    return UnknownLayout(f"{path}: {what}, not safetensors", "give a .safetensors file")


def _refuse_zip(path: Path) -> CheckpointError:
    try:
        names = zip_names(path)
    except CheckpointError as error:
        return error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return _no_safetensors(path, "a PyTorch file")
    if (other := zip_of_others(names)) is not None:
        return CheckpointError(f"{path}: {other}, which patchword does not read", _OWN)
    if names and all(name.endswith(".npy") for name in names):
        return _no_safetensors(path, "NumPy arrays (.npz)")
    return CheckpointError(f"{path}: a zip archive, not weights", "unpack it")
