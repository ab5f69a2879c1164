"""What only shows on a model with tokens, learned positions, drop path and dropout."""

import json
from pathlib import Path

import numpy as np
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


def test_micro_batches_add_up_to_the_batch(tmp_path: Path) -> None:
    """With drop path, mixing and label smoothing. Dropout alone is drawn anew for each part."""
    write_scans(tmp_path / "scans", {"d0": 14, "d1": 14})
    settings = RICH_SETTINGS | {"model.block.dropout": 0.0, "run.batch_size": 10, "augment.mixing.mixup": 0.8}
    losses = []
    for part in (0, 4):
        run = api.train(
            tmp_path / "scans",
            out=tmp_path / f"{part}",
            epochs=10,
            settings=settings | {"run.micro_batch": part},
        )
        records = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        losses.append([record["loss"] for record in records if record["kind"] == "step"])
    assert len(losses[0]) == 20
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-5)
