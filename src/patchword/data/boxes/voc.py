"""Pascal VOC XML, one file for each image, as annotations.

Format: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge". Coordinates are taken as they are
written: VOC's own count pixels from 1, those of most labelling tools from 0, and no file says which.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from patchword.data.boxes.annotations import Annotations, WrittenBoxes, WrittenImage, size_of
from patchword.data.boxes.files import Files, folder_of, stem
from patchword.data.boxes.forms import Form
from patchword.errors import DataError, plural

FORM = Form("xyxy")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def parse(files: Files, members: Mapping[str, Sequence[str]]) -> list[Annotations]:
    """members: the XML files of each split. Raises: DataError that names the file and what it lacks."""
    return [_split(files, split, xmls) for split, xmls in members.items()]


def _split(files: Files, split: str, xmls: Sequence[str]) -> Annotations:
    images: list[WrittenImage] = []
    boxes, names = WrittenBoxes(), dict[int | str, str]()
    renamed: list[str] = []
    stems = {stem(image) for image in files.images()}
    for i, file in enumerate(xmls):
        shown = files.shown(file)
        root = _root(files.read(file), shown)
        written = (root.findtext("filename") or "").strip().replace("\\", "/")
        # Renamed images keep their old name inside the XML, so the name of the XML comes first.
        by_stem = stem(file) in stems or not written
        if by_stem and written and stem(written) not in (stem(file), written + stem(file)):
            renamed.append(f"{file} says {written}")
        images.append(
            WrittenImage(
                name=stem(file) if by_stem else written,
                folder=folder_of(file),
                where=shown,
                size=size_of(root.findtext("size/height"), root.findtext("size/width")),
            )
        )
        for number, found in enumerate(root.iter("object")):
            place = f"object {number}"
            label = (found.findtext("name") or "").strip()
            if not label:
                raise DataError(f"{shown}: {place} has no name", "name its class")
            names[label] = label
            difficult = (found.findtext("difficult") or "0").strip() == "1"
            boxes.add(i, _corners(found, f"{shown}: {place}"), label, place, difficult=difficult)
    readings = []
    if renamed:
        readings.append(
            f"{split}: {plural(len(renamed), 'XML file')} with another image name inside, e.g. {renamed[0]}; "
            "the image called as the XML file is used"
        )
    return Annotations(
        split=split,
        source=files.shown(folder_of(xmls[0]) if xmls else ""),
        images=images,
        boxes=boxes,
        form=FORM,
        names=names,
        has_ids=False,
        readings=tuple(readings),
    )


def _root(data: bytes, shown: str) -> ET.Element:
    try:
        root = ET.fromstring(data)
    except ET.ParseError as error:
        raise DataError(f"{shown}: not valid XML ({error})", "export it again") from error
    if root.tag != "annotation":
        raise DataError(f"{shown}: the XML holds <{root.tag}>, not <annotation>", "give Pascal VOC files")
    return root


def _corners(found: ET.Element, place: str) -> tuple[float, float, float, float]:
    texts = {name: (found.findtext(f"bndbox/{name}") or "").strip() for name in _CORNERS}
    missing = next((name for name, text in texts.items() if not text), None)
    if missing is not None:
        raise DataError(f"{place} has no bndbox/{missing}", "give xmin, ymin, xmax and ymax")
    try:
        a, b, c, d = (float(text) for text in texts.values())
    except ValueError:
        wrong = next(name for name, text in texts.items() if not _is_number(text))
        raise DataError(f"{place}: {wrong} is {texts[wrong]!r}", "give a number") from None
    return a, b, c, d


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def is_annotation(start: str) -> bool:
    """Whether a file that starts so is Pascal VOC."""
    return "<annotation" in start
