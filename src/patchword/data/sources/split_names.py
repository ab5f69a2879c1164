"""Folder names that identify splits, or folders that are not classes."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable

SPLITS = {
    "train": ("train", "training", "trn", "trainval"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_SPLIT_OF = {spelling: name for name, spellings in SPLITS.items() for spelling in spellings}
# Words that may appear next to a split's word, as in training_set, imgs_train and seg_test.
_BESIDE_A_SPLIT = "set sets data dataset images image imgs img pics folder split seg jpg jpeg png"
_IMAGES = "images image imgs img pictures pics photos frames jpeg jpegs jpg png files samples data dataset"
_MASKS = "masks mask labels annotations segmentation segmentations segmented gt groundtruth"
_VERSIONS = "originals original raw resized cropped augmented augmentation thumbnails thumbs previews preview"
_BESIDE_A_KIND = "class object ground truth"  # as in SegmentationClass
_NO_LABEL = "unlabeled unlabelled unknown pred predict prediction submission all"
_PART = "part parts batch chunk fold folds shard images image imgs img pictures photos volume disk folder"
_NEUTRAL = frozenset(_BESIDE_A_SPLIT.split())
_GENERIC = frozenset([*_IMAGES.split(), *_MASKS.split(), *_VERSIONS.split()])
_WITH_GENERIC = _GENERIC | frozenset(_BESIDE_A_KIND.split())
_UNLABELLED = frozenset(_NO_LABEL.split())
_PARTS = frozenset(_PART.split())


def split_order(name: str) -> tuple[int, str]:
    """train, val, test, then all else by name."""
    return (list(SPLITS).index(name) if name in SPLITS else len(SPLITS), name)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Class names in their order: by number when all are numbers, else by name."""
    unique = set(names)
    if all(re.fullmatch(r"[0-9]+", name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def split_called(name: str) -> str | None:
    """The split with exactly this name, in any letter case."""
    return _SPLIT_OF.get(name.lower())


def misspelt_split(name: str) -> str | None:
    """The split that was probably meant by "trian" or "vall"; None for names that are no nearer than extra is to train."""
    near = difflib.get_close_matches(name.lower(), _SPLIT_OF, n=1, cutoff=0.75)
    return _SPLIT_OF[near[0]] if near else None


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Name → split, for each name that says one: "val", and also "val_set", "imgs_val", "val2017".

    A word next to the split's must be a usual one, or appear next to another split's too: flowers_train and flowers_test
    are splits, cat_train and dog_test are not.
    """
    names = list(names)
    found = {name: split for name in names if (split := split_called(name))}
    likely = {name: parts for name in names if name not in found and (parts := _split_and_rest(name))}
    shared = Counter(rest for _, rest in likely.values())
    for name, (split, rest) in likely.items():
        usual = all(word in _NEUTRAL for word in rest)
        if (usual or shared[rest] > 1) and split not in (
            found[other] for other in found if split_called(other)
        ):
            found[name] = split
    return found


def _split_and_rest(name: str) -> tuple[str, tuple[str, ...]] | None:
    """The split that one word of the name says, and the other words; None if no word or several do."""
    splits: list[str] = []
    rest: list[str] = []
    for word in words(name):
        bare = word
        for usual in ("sets", "set", "dataset", "data", "images", "imgs", "folder"):
            if word.removesuffix(usual) in _SPLIT_OF:
                bare = word.removesuffix(usual)
        (splits if bare in _SPLIT_OF else rest).append(bare)
    return (_SPLIT_OF[splits[0]], tuple(rest)) if len(splits) == 1 else None


def words(name: str) -> list[str]:
    """The words of a name in small letters, without numbers: "TrainImages_2" is train, images."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return re.findall(r"[^\W\d_]+", parted.lower())


def is_generic(name: str) -> bool:
    """Whether a folder of this name holds images of any class: images, masks, JPEGImages, resized."""
    found = words(name)
    return any(word in _GENERIC for word in found) and all(word in _WITH_GENERIC for word in found)


def is_unlabelled(name: str) -> bool:
    """Whether a folder of this name holds images without a class."""
    return any(word in _UNLABELLED for word in words(name))


def are_parts(names: Iterable[str]) -> bool:
    """Whether names number the parts of one set: part_1 and part_2, fold1 to fold5, images_001 to images_012."""
    names = list(names)
    stems = {tuple(word for word in words(name) if len(word) > 1) for name in names}
    return (
        len(names) > 1
        and len(stems) == 1
        and all(re.search(r"\d|[-_ ][a-z]$", name.lower()) for name in names)
        and any(word in _PARTS for word in next(iter(stems)))
    )
