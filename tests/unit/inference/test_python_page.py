"""Every line of docs/python.md runs, one block after the other, as a reader would type them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def test_the_python_page_does_what_it_says(
    model_file: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    shutil.copy(model_file, tmp_path / "runs" / "demo" / "last.safetensors")
    shutil.copy(pictures[1], tmp_path / "photo.jpg")
    (tmp_path / "labels.csv").write_text("image,label\nphoto.jpg,tulip\n")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["logits"].shape == (1, len(names["model"].classes))
    assert (tmp_path / "photo.png").stat().st_size > 1000
    assert len(text.splitlines()) < 140
