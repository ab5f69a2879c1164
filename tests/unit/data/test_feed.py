"""Batches from any store: equal, resumable, complete, and no thread stays behind."""

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from patchword.data import shelves
from patchword.data.dataset import Split
from patchword.data.feed import Feed, stacked
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.data.shelves import cache_folder
from patchword.data.stamps import Stamps
from patchword.data.store import Budget, Cache, Store, open_store
from patchword.errors import DataError, SettingsError, UserError
from patchword.images.preprocess import Preprocess
from support.scans import write_scans

STORED = Preprocess.simple(16, in_channels=1)
Answer = tuple[int, tuple[str, ...], bytes, list[int], list[int]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """21 scans, one of which is 16 bits deep and one unreadable."""
    write_scans(tmp_path / "data", {"d0": 10, "d1": 11})
    levels = np.arange(24 * 24, dtype=np.uint16).reshape(24, 24) * 100
    Image.fromarray(levels).save(tmp_path / "data" / "d1" / "3.png")
    (tmp_path / "data" / "d0" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    return tmp_path / "data"


def _split(folder: Path) -> Split:
    return open_data(folder, OpenRequest(split=False)).splits["all"]


def _feed(split: Split, store: Store, workers: int = 2, **named: object) -> Feed:
    def collate(pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        return stacked(pixels), torch.from_numpy(split.labels[list(rows)])

    return Feed(split, store, collate, **{"batch_size": 4, "seed": 0, "workers": workers, **named})  # type: ignore[arg-type]


def _answers(feed: Feed, epoch: int, start: int = 0) -> list[Answer]:
    return [
        (fed.step, fed.names, fed.images.numpy().tobytes(), fed.targets.tolist(), fed.samples.tolist())
        for fed in feed.epoch(epoch, start)
    ]


def _threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("patchword")}


def test_batches_are_equal_from_any_store_with_any_number_of_workers(folder: Path) -> None:
    split = _split(folder)
    plain = _feed(split, open_store(split, STORED, "none"), workers=1)
    expected = [_answers(plain, epoch) for epoch in range(2)]
    assert sum(len(names) for _, names, *_ in expected[0]) in (19, 20)
    few = Budget(memory=5 * 16 * 16, disk=0)  # room for five images
    for cache, budget, kind in (
        ("auto", None, "memory"),
        ("memory", few, "memory"),
        ("auto", few, "none"),
        ("disk", None, "disk"),
        ("disk", None, "disk"),  # from what the one before left
    ):
        store = open_store(split, STORED, cache, budget=budget)  # type: ignore[arg-type]
        assert store.kind == kind and store.text.startswith("decoded images: ")
        feed = _feed(split, store, workers=3)
        assert [_answers(feed, epoch) for epoch in range(2)] == expected
        assert feed.skipped == plain.skipped and [name for name, _ in feed.skipped] == ["d0/2.png"]
        assert feed.contents == plain.contents


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_kept_image_is_not_read_again(folder: Path, cache: Cache) -> None:
    split = _split(folder)
    first = [open_store(split, STORED, cache)[i] for i in range(len(split))]
    store = open_store(split, STORED, cache)
    if cache == "memory":
        _ = [store[i] for i in range(len(split))]
    shutil.rmtree(folder)
    for index, answer in enumerate(first):
        again = store[index]
        if isinstance(answer, str):
            assert isinstance(again, str)
        else:
            assert np.array_equal(again, answer) and again.dtype == answer.dtype


def test_a_resume_in_mid_epoch_gives_the_same_batches(folder: Path) -> None:
    split = _split(folder)
    whole = _answers(_feed(split, open_store(split, STORED)), 1)
    assert _answers(_feed(split, open_store(split, STORED, "none"), workers=4), 1, 3) == whole[3:]


def test_an_unreadable_image_moves_no_other_and_keeps_partners_together(folder: Path) -> None:
    split = _split(folder)
    with_it = _answers(_feed(split, open_store(split, STORED)), 0)
    Image.new("L", (24, 24), 77).save(folder / "d0" / "2.png")
    split = _split(folder)
    mended = _answers(_feed(split, open_store(split, STORED)), 0)
    for (_, names, *_), (_, complete, *_) in zip(with_it, mended, strict=True):
        assert set(names) == set(complete) - {"d0/2.png"}
        pairs = {frozenset(complete[i : i + 2]) for i in (0, 2)}
        assert frozenset(names[:2]) in pairs
    known = _feed(split, open_store(split, STORED), unreadable=[split.names.index("d0/2.png")])
    assert known.num_images == 20
    assert all("d0/2.png" not in names for epoch in range(3) for _, names, *_ in _answers(known, epoch))


def test_threads_end_with_the_iterator_also_when_the_loop_breaks(folder: Path) -> None:
    split = _split(folder)
    feed = _feed(split, open_store(split, STORED, "none"))
    batches = feed.epoch(0)
    next(batches)
    assert _threads()
    batches.close()  # type: ignore[attr-defined]
    assert not _threads()

    def failing(pixels: Sequence[Tensor], rows: Sequence[int]) -> tuple[Tensor, None]:
        raise ValueError("collate failed")

    with pytest.raises(ValueError, match="collate failed"):
        list(Feed(split, open_store(split, STORED), failing, batch_size=4, seed=0, workers=2).epoch(0))
    assert not _threads()


def test_a_decoder_that_fails_unexpectedly_is_an_error_with_the_files_name(folder: Path) -> None:
    class Failing:
        def __call__(self, row: int) -> str:
            raise RuntimeError("device error")

    split = replace(_split(folder), reader=Failing())
    with pytest.raises(DataError, match=r"d\d/\d+.png: decoding failed with RuntimeError: device error"):
        list(_feed(split, open_store(split, STORED, "none")).epoch(0))


def test_a_split_without_a_readable_image_is_an_error(folder: Path) -> None:
    split = _split(folder)
    store = open_store(split, STORED)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=r"none of the 20 training images .* can be read.*no such file"):
        list(_feed(split, store).epoch(0))


def test_a_damaged_cache_on_disk_is_decoded_again(folder: Path) -> None:
    split = _split(folder)
    expected = _answers(_feed(split, open_store(split, STORED, "disk")), 0)
    (place,) = (cache_folder() / "decoded").iterdir()
    data = bytearray((place / "pixels.uint8").read_bytes())
    for at in range(0, len(data), 256):
        data[at + 9] ^= 255
    (place / "pixels.uint8").write_bytes(data)
    assert _answers(_feed(split, open_store(split, STORED, "disk")), 0) == expected
    (place / "pixels.uint8").write_bytes(data[: len(data) // 2])
    (place / "index").write_bytes((place / "index").read_bytes()[:50])
    assert _answers(_feed(split, open_store(split, STORED, "disk")), 0) == expected


def test_a_changed_file_or_other_preprocessing_uses_another_cache_and_removes_the_old_one(
    folder: Path,
) -> None:
    split = _split(folder)
    index = split.names.index("d0/1.png")
    before = open_store(split, STORED, "disk")[index]
    Image.new("L", (24, 24), 77).save(folder / "d0" / "1.png")
    after = open_store(_split(folder), STORED, "disk")[index]
    assert not np.array_equal(before, after) and np.all(np.asarray(after) == 77)
    assert len(list((cache_folder() / "decoded").iterdir())) == 1
    larger = open_store(_split(folder), Preprocess.simple(20, in_channels=1), "disk")[index]
    assert not isinstance(larger, str) and larger.shape == (1, 20, 20)
    assert len(list((cache_folder() / "decoded").iterdir())) == 2


def test_the_caches_are_bounded_and_unused_ones_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = _split(folder)

    def fill(side: int, disk: int = 10**8) -> str:
        store = open_store(
            split, Preprocess.simple(side, in_channels=1), "disk", budget=Budget(memory=0, disk=disk)
        )
        assert not [store[i] for i in range(len(split)) if i < 0]
        return store.text

    texts = [fill(16), fill(20)]
    entries = cache_folder() / "decoded"
    for age, text in enumerate(reversed(texts)):
        (entry,) = (e for e in entries.iterdir() if e.name in text)
        os.utime(entry / "meta.json", (1e9 + age, 1e9 + age))
    monkeypatch.setattr(shelves, "KEPT_FOR_S", 1e12)
    for entry in entries.iterdir():
        (entry / "pixels.uint8").write_bytes(bytes(10_000))
    fill(24, 30_000)  # the new one takes 12,096 bytes, so one of the others has to go
    assert len(list(entries.iterdir())) == 2
    monkeypatch.setattr(shelves, "KEPT_FOR_S", 1000)
    last = fill(28)
    assert not any(entry.stat().st_mtime < 1.5e9 for entry in entries.glob("*/meta.json"))
    assert sum(entry.name in last for entry in entries.iterdir()) == 1


def test_a_cache_without_room_is_refused_or_left_out(folder: Path, tmp_path: Path) -> None:
    split = _split(folder)
    tiny = Budget(memory=10, disk=10)
    store = open_store(split, STORED, "auto", budget=tiny)
    assert store.kind == "none" and "each epoch decodes them again" in store.text
    with pytest.raises(SettingsError, match="cannot be kept on disk"):
        open_store(split, STORED, "disk", budget=tiny)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(SettingsError, match="cannot be kept on disk"):
        open_store(split, STORED, "disk", budget=Budget(memory=0, disk=10**9))
    digits = open_data("digits").training
    with pytest.raises(SettingsError, match="no modification times"):
        open_store(digits, STORED, "disk")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_is_full_costs_the_cache_and_not_the_run(folder: Path) -> None:
    split = _split(folder)
    expected = _answers(_feed(split, open_store(split, STORED, "none")), 0)
    store = open_store(split, STORED, "disk")
    index = store._shelf._index  # type: ignore[attr-defined]
    index._file.close()
    index._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115
    assert _answers(_feed(split, store), 0) == expected
    assert "No space left" in store.problem


def test_changed_files_are_named_and_copied_ones_are_not(folder: Path, tmp_path: Path) -> None:
    split = _split(folder)
    before = Stamps.of(split)
    before.read_rest(split)
    before = Stamps.from_bytes(before.to_bytes(), "files.npz")
    assert Stamps.of(split).changed(before, split) == []
    shutil.copytree(folder, tmp_path / "moved", copy_function=shutil.copyfile)  # other times
    moved = _split(tmp_path / "moved")
    assert not np.array_equal(Stamps.of(moved).times, before.times)
    assert Stamps.of(moved).changed(before, moved) == []
    content = bytearray((folder / "d0" / "1.png").read_bytes())
    content[-20] ^= 1
    (tmp_path / "moved" / "d0" / "1.png").write_bytes(content)  # the same size
    (tmp_path / "moved" / "d1" / "1.png").unlink()
    assert Stamps.of(moved).changed(before, moved) == ["d0/1.png", "d1/1.png"]
    with pytest.raises(UserError, match=r"files\.npz is damaged"):
        Stamps.from_bytes(before.to_bytes()[:100], "files.npz")
