"""`patchword models --published`: fits 80 columns, filters by licence, shows one release whole, without torch."""

import json
import subprocess
import sys

import pytest

from patchword.cli.main import run
from patchword.hub.published import releases

Output = pytest.CaptureFixture[str]


def _out(args: list[str], capsys: Output) -> tuple[int, str, str]:
    code = run(["models", "--published", *args])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_release_is_listed_with_its_whole_name_within_80_columns(capsys: Output) -> None:
    code, out, err = _out([], capsys)
    lines = out.splitlines()
    assert code == 0 and max(map(len, [*lines, *err.splitlines()])) <= 80
    names = {line.split()[0] for line in lines if line}
    assert {release.name for release in releases()} <= names


def test_a_family_or_a_part_of_a_name_narrows_the_list(capsys: Output) -> None:
    _, family, _ = _out(["dinov2"], capsys)
    assert family.count("DINOv2 (arXiv 2304.07193, 2309.16588)") == 1 and "dinov3" not in family
    _, part, _ = _out(["vit_small_patch16"], capsys)
    assert "timm/vit_small_patch16_224.dino" in part and "vit_base" not in part


def test_a_bare_name_lists_what_it_may_mean(capsys: Output) -> None:
    code, out, _ = _out(["vit_base_patch16_224"], capsys)
    assert code == 0 and "google/vit-base-patch16-224" in out and "timm/vit_base_patch16_224.mae" in out


def test_one_name_shows_every_fact_with_its_source_and_what_is_not_known(capsys: Output) -> None:
    code, out, _ = _out(["openai/ViT-B-32"], capsys)
    assert code == 0
    for said in (
        "sha256",
        "act quick_gelu",
        "[LICENSE of openai/CLIP, as packagers quote it]",
        "zero-shot top-1",
        "0.48145466",
    ):
        assert said in out
    missing = next(line for line in out.splitlines() if line.startswith("not known"))
    assert "licence.weights" in missing
    assert "draft_margin" not in out


def test_the_licence_filter_keeps_only_what_is_allowed(capsys: Output) -> None:
    code, out, err = _out(["--license-allow", "MIT", "--license-allow", "cc-by-nc-4.0", "--json"], capsys)
    kept = {release["licence"]["weights"] for release in json.loads(out)}
    assert code == 0 and kept == {"mit", "cc-by-nc-4.0"} and "is not known" in err
    code, out, err = _out(["dinov2", "--license-allow", "mit"], capsys)
    assert code == 0 and out == "" and "0 of 28" in err


def test_an_unknown_licence_names_those_in_use(capsys: Output) -> None:
    code, _, err = _out(["--license-allow", "mitt"], capsys)
    assert code == 2 and "did you mean 'mit'" in err and "cc-by-nc-4.0" in err


def test_an_unknown_name_names_the_nearest_family_or_release(capsys: Output) -> None:
    code, _, err = _out(["dinov4"], capsys)
    assert code == 2 and "'DINOv3'" in err
    code, _, err = _out(["facebook/dinov2-bas-x"], capsys)
    assert code == 2 and "near: facebook/dinov2-base" in err


def test_the_licence_filter_without_published_is_refused(capsys: Output) -> None:
    assert run(["models", "--license-allow", "mit"]) == 2
    assert "add --published" in capsys.readouterr().err


def test_json_has_sources(capsys: Output) -> None:
    _, out, _ = _out(["facebook/dino-vits16", "--json"], capsys)
    (release,) = json.loads(out)
    assert release["format"] == "transformers" and {"fact", "text"} == set(release["sources"][0])


def test_no_torch_is_imported() -> None:
    code = (
        "from patchword.cli.main import run; run(['models', '--published', 'dino']); "
        "import sys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
