"""Which images are held out: each by its own name, copies together, something of every class."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.splits import HELD_OUT, held_out, place_of
from support.scans import write_scans

FEW = settings(max_examples=40)
Images = dict[str, tuple[int, int]]  # name → (class, content)
names = st.text("abcé0123456789/", min_size=1, max_size=6)
images = st.dictionaries(names, st.tuples(st.integers(0, 3), st.integers(0, 400)), max_size=40)


def _held(some: Images, seed: int = 0) -> set[str]:
    labels = np.array([label for label, _ in some.values()], dtype=np.int64)
    contents = [content for _, content in some.values()]
    mask = held_out(labels, list(some), seed, contents=contents)
    return {name for name, held in zip(some, mask, strict=True) if held}


def _of_class(some: Images, label: int) -> set[str]:
    return {name for name, (its, _) in some.items() if its == label}


def _one_of_each_content(some: Images) -> Images:
    return {name: some[name] for name in {content: name for name, (_, content) in some.items()}.values()}


@FEW
@given(images, images, st.integers(0, 5))
def test_adding_images_moves_none_from_training_to_the_held_out_side(
    before: Images, more: Images, seed: int
) -> None:
    grown = _one_of_each_content({**before, **more})
    before = {name: value for name, value in grown.items() if name in before}
    was, now = _held(before, seed), _held(grown, seed)
    for label in range(4):
        mine = _of_class(before, label)
        if len(mine) > 1 and any(place_of(name, seed) >= HELD_OUT for name in mine):
            assert not (now - was) & mine


@FEW
@given(images, st.data())
def test_removing_images_moves_none_of_a_class_that_still_has_some_held_out(
    before: Images, data: st.DataObject
) -> None:
    before = _one_of_each_content(before)
    kept = {name: value for name, value in before.items() if data.draw(st.booleans())}
    was, now = _held(before), _held(kept)
    for label in range(4):
        mine = _of_class(kept, label)
        if was & mine and len(mine) > 1 and mine - was:
            assert not (now - was) & mine


@FEW
@given(images, st.randoms(use_true_random=False))
def test_the_order_of_the_images_decides_nothing_and_copies_are_on_one_side(
    some: Images, drawn: object
) -> None:
    held, shuffled = _held(some), list(some.items())
    drawn.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _held(dict(shuffled)) == held
    sides: dict[int, set[bool]] = {}
    for name, (_, content) in some.items():
        sides.setdefault(content, set()).add(name in held)
    assert all(len(side) == 1 for side in sides.values())


@FEW
@given(images)
def test_every_class_of_two_images_has_one_on_each_side_and_a_single_one_is_trained_on(some: Images) -> None:
    some = _one_of_each_content(some)
    held = _held(some)
    for label in range(4):
        mine = _of_class(some, label)
        assert len(mine & held) == 0 if len(mine) < 2 else 0 < len(mine & held) < len(mine)


def test_about_a_fifth_of_many_images_is_held_out_and_another_seed_holds_out_others() -> None:
    some = {f"{label}/{i}.jpg": (label, 4000 * label + i) for label in range(3) for i in range(3000)}
    first, second = _held(some, 0), _held(some, 1)
    for label in range(3):
        assert len(first & _of_class(some, label)) / 3000 == pytest.approx(HELD_OUT, abs=0.025)
    assert len(first & second) / len(some) == pytest.approx(HELD_OUT**2, abs=0.015)


@pytest.mark.parametrize("pattern", ["{:03d}.jpg", "IMG_{}.png", "{:05d}_left.jpeg", "scan {} .tif"])
@pytest.mark.parametrize("stride", [1, 2, 10, 144, 610])
def test_numbered_files_are_held_out_evenly(pattern: str, stride: int) -> None:
    shares = []
    for seed in range(20):
        keys = [pattern.format(5 + stride * i) for i in range(40)]
        shares.append(held_out(np.zeros(40, np.int64), [f"/cats/{k}" for k in keys], seed).mean())
    assert 0.15 < np.mean(shares) < 0.25
    assert np.std(shares) < (0.045 if stride == 1 else 0.15), "Bernoulli's would be 0.063"


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_copy_stays_on_the_side_of_its_original(tmp_path: Path, form: str) -> None:
    write_scans(tmp_path / "scans", {"d0": 12, "d1": 12})
    for file in sorted((tmp_path / "scans").rglob("*.png")):
        shutil.copy(file, file.with_stem(f"copy of {file.stem}"))
    path = tmp_path / "scans"
    if form == "zip":
        path = tmp_path / "scans.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((tmp_path / "scans").rglob("*.png")):
                archive.write(file, file.relative_to(tmp_path))
    data = open_data(path)
    for split in data.splits.values():
        stems = [
            name.rpartition("/")[0] + name.rpartition("/")[2].removeprefix("copy of ") for name in split.names
        ]
        assert len(split) and all(stems.count(stem) == 2 for stem in stems)


def test_the_seed_of_the_training_changes_no_split(tmp_path: Path) -> None:
    write_scans(tmp_path, {"d0": 12, "d1": 12})
    first, again, other = (open_data(tmp_path, OpenRequest(split_seed=s)).evaluation.names for s in (1, 1, 2))
    assert first == again != other
