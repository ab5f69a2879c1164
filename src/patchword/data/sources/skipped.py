"""Skipped files: what they are by content, and whether they may be images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import splitext

from patchword.data.dataset import Problem
from patchword.data.sources.listing import Folder, Head, Tree
from patchword.data.sources.neighbours import archives
from patchword.errors import ImageError, plural
from patchword.images.sniff import HEAD, sniff

_CAMERAS = ".cr2 .cr3 .nef .nrw .arw .dng .orf .rw2 .raf .pef .srw .raw"
RAW = frozenset(_CAMERAS.split())
LOOKED_AT = 3  # files per extension
MAX_ENDINGS = 20
# Skipped files that may be images cause a warning from this share on, below it a note.
LARGE_SHARE = 0.05
_NO_IMAGES = (
    "text",
    "not an image",
    "an html page",
    "nothing but",
    "the file is empty",
    "a zip",
    "gzip",
    "json",
)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Files with one extension. what: what they are ("DICOM"), "" if they are clearly not images."""

    ending: str
    files: Sequence[str]
    what: str
    fix: str

    @property
    def text(self) -> str:
        """For a list of counts: ".dcm (DICOM)"."""
        return f"{self.ending or 'no file extension'}{f' ({self.what})' if self.what else ''}"

    @property
    def counted(self) -> str:
        """ "10 .dcm files (DICOM)"."""
        kind = f"{self.ending} file" if self.ending else "file"
        without = "" if self.ending else " without a file extension"
        return f"{plural(len(self.files), kind)}{without}{f' ({self.what})' if self.what else ''}"


def skipped_in(folder: Folder, head: Head) -> list[Skipped]:
    """Files in and below the folder that are not images by their extension, the most frequent extension first."""
    by_ending: dict[str, list[str]] = defaultdict(list)
    for place in folder.walk():
        for file in place.others:
            by_ending[splitext(file)[1].lower()].append(file)
    most = sorted(by_ending.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Skipped(ending=ending, files=files, what=what, fix=fix)
        for i, (ending, files) in enumerate(most)
        for what, fix in [_what(ending, files, head) if i < MAX_ENDINGS else ("", "")]
    ]


def _what(ending: str, files: Sequence[str], head: Head) -> tuple[str, str]:
    if ending in RAW:
        return "camera raw", "export them as JPEG or PNG"
    for file in files[:LOOKED_AT]:
        try:
            start = head(file, HEAD)
            kind = sniff(start, len(start), file)
        except ImageError as error:
            what = error.about(file).split(",")[0]
            if not what.lower().startswith(_NO_IMAGES):
                return what, error.fix
            continue
        except OSError:
            continue
        if kind not in ("tga", "pcx", "cur"):  # known by a few bytes that other files may begin with
            return kind.upper(), f"change their file extension to .{'jpg' if kind == 'jpeg' else kind}"
    return "", ""


def skipped_problems(tree: Tree, path: str) -> list[Problem]:
    """A warning or a note for each kind of file that may be an image and is not read."""
    problems = []
    for found in skipped_in(tree.root, tree.head):
        if not found.what:
            continue
        share = len(found.files) / (len(found.files) + tree.root.num_images)
        problems.append(
            Problem(
                severity="warning" if share >= LARGE_SHARE else "note",
                message=f"{path}: skipped {found.counted}, e.g. {found.files[0]}",
                fix=found.fix,
            )
        )
    packed = archives(tree.root)
    if packed:
        message = f"{path}: skipped {plural(len(packed), 'archive')}, e.g. {packed[0]}"
        problems.append(Problem(severity="note", message=message, fix="unpack those that contain images"))
    return problems
