"""What only shows on a model with tokens, learned positions, drop path and dropout."""

from pathlib import Path

from safetensors.numpy import load_file

from patchword import api
from patchword.model.vit import ViT
from patchword.training.optim import make_optimiser
from patchword.training.optim_settings import OptimSettings
from support.rich import RICH, RICH_SETTINGS
from support.scans import write_scans


def test_tokens_and_positions_do_not_decay() -> None:
    for method in ("adamw", "muon"):
        model = ViT(RICH)
        groups = make_optimiser(model, OptimSettings(method=method)).param_groups
        decayed = {p for group in groups if group["weight_decay"] for p in group["params"]}
        names = {name for name, p in model.named_parameters() if p in decayed}
        assert names == {
            name
            for name, p in model.named_parameters()
            if name.endswith("weight") and p.ndim >= 2 and not name.startswith(("prefix.", "positions."))
        }, method
        kept = {n for n, _ in model.named_parameters() if n.startswith(("prefix.", "positions."))}
        assert len(kept) >= 3 and not kept & names, "class token, registers and positions are there"


def test_a_stopped_run_with_dropout_and_drop_path_ends_in_the_same_bits(tmp_path: Path) -> None:
    write_scans(tmp_path / "scans", {"d0": 10, "d1": 10})
    whole = api.train(tmp_path / "scans", out=tmp_path / "run", epochs=2, settings=RICH_SETTINGS)
    ends = load_file(whole.folder / "last.safetensors")
    max((whole.folder / "state").glob("*.pt")).unlink()  # as it was after its first epoch
    (whole.folder / "evaluation.json").unlink()
    again = load_file(api.resume(whole.folder).folder / "last.safetensors")
    assert all(again[name].tobytes() == ends[name].tobytes() for name in ends)
