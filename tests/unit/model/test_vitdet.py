"""The detector on a plain ViT: shapes, independence of batch mates, finite losses, and that it can learn."""

import pytest
import torch

from patchword.errors import SettingsError
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import MeanPool, Rope2d
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.decoder import box_encoding
from patchword.model.vitdet.loss import Objects, losses
from patchword.model.vitdet.model import VitDet


def backbone(**parts: object) -> ViTConfig:
    return ViTConfig(
        image=ImageConfig(size=(32, 48)),
        patch=PatchConfig(size=(8, 8)),
        dim=32,
        depth=1,
        tokens=TokensConfig(class_token=False),
        positions=Rope2d(),
        attention=AttentionConfig(num_heads=2),
        head=HeadConfig(pool=MeanPool(), num_classes=0),
    )


def detector(**parts: object) -> VitDet:
    given = {"num_classes": 3, "num_queries": 20, "num_layers": 2, "num_heads": 4, **parts}
    config = VitDetConfig(vit=backbone(), **given)  # type: ignore[arg-type]
    return VitDet(config, generator=torch.Generator().manual_seed(0))


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 48, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_every_layer_answers_for_every_query_and_every_cell_proposes() -> None:
    found = detector().eval()(images())
    cells = 8 * 12 + 4 * 6 + 2 * 3
    assert found.logits.shape == (2, 2, 20, 3) and found.boxes.shape == (2, 2, 20, 4)
    assert found.cell_logits.shape == (2, cells, 3) and found.cells.shape == (cells, 4)
    assert ((found.boxes > 0) & (found.boxes < 1)).all()


@torch.no_grad()
def test_an_answer_does_not_depend_on_the_other_images_of_the_batch() -> None:
    model = detector().eval()
    together, alone = model(images(3)), model(images(3)[1:2])
    torch.testing.assert_close(together.boxes[:, 1], alone.boxes[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(together.logits[:, 1], alone.logits[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (3, 60)])
def test_losses_are_finite_whatever_the_number_of_objects(counts: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    targets = [
        Objects(
            torch.randint(0, 3, (n,), generator=generator),
            torch.rand(n, 4, generator=generator) * 0.4 + 0.3,
        )
        for n in counts
    ]
    model = detector(num_queries=1 if counts == (0, 1) else 20)
    total = torch.stack(list(losses(model(images()), targets).values())).sum()
    assert total.isfinite()
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_it_learns_where_two_objects_are() -> None:
    model, pictures = detector(num_layers=1), images(1)
    pictures[:, :, 4:16, 4:20] += 3
    pictures[:, :, 18:30, 26:44] -= 3
    target = Objects(
        torch.tensor([0, 2]), torch.tensor([[0.25, 0.3125, 1 / 3, 0.375], [0.7292, 0.75, 0.375, 0.375]])
    )
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        optimiser.zero_grad()
        torch.stack(list(losses(model(pictures), [target]).values())).sum().backward()
        optimiser.step()
    found = model.eval()(pictures)
    best = found.logits[-1, 0].amax(-1).topk(2).indices
    order = found.logits[-1, 0][best].argmax(-1).argsort()
    assert sorted(found.logits[-1, 0][best].argmax(-1).tolist()) == [0, 2]
    torch.testing.assert_close(found.boxes[-1, 0][best[order]], target.boxes, atol=0.05, rtol=0)


def test_the_encoding_tells_boxes_apart() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.21], [0.51, 0.5, 0.2, 0.2]])
    codes = box_encoding(boxes, 32)
    assert codes.shape == (3, 32) and torch.pdist(codes).min() > 0.05


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(SettingsError, match="scales"):
        detector(scales=(4.0,))
    with pytest.raises(SettingsError, match="heads"):
        detector(dim=30)
