"""The detector on a plain ViT: shapes, independence of batch mates, finite losses, and that it can learn."""

import pytest
import torch

from patchword.errors import SettingsError
from patchword.model.boxes import iou, to_corners
from patchword.model.config import (
    AttentionConfig,
    HeadConfig,
    ImageConfig,
    PatchConfig,
    TokensConfig,
    ViTConfig,
)
from patchword.model.kinds import MeanPool, Rope2d
from patchword.model.matching import Targets
from patchword.model.vitdet.config import VitDetConfig
from patchword.model.vitdet.decoder import box_encoding
from patchword.model.vitdet.loss import chosen_cells, losses, varifocal
from patchword.model.vitdet.model import VitDet, ranks
from patchword.model.vitdet.practice import practice


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


@torch.no_grad()
def test_a_query_whose_cell_has_a_likelier_neighbour_scores_lower() -> None:
    model = detector(num_queries=504).eval()
    found = model(images())
    shares = found.cell_logits.sigmoid().amax(-1)
    # All cells are queries, so the ranks tell which were reduced: a tenth of their own probability.
    assert found.ranks.shape == found.logits.shape[1:3]
    reduced = (found.ranks.sort(-1).values - shares.sort(-1).values).abs() > 1e-6
    assert reduced.any()
    alike = found._replace(logits=torch.zeros_like(found.logits)).scores
    torch.testing.assert_close(alike[..., 0], (0.5 * found.ranks).sqrt())
    assert (alike.diff(dim=1) <= 0).all()


def objects(*counts: int) -> Targets:
    generator = torch.Generator().manual_seed(2)
    return Targets.of(
        [
            (
                torch.randint(0, 3, (n,), generator=generator),
                torch.rand(n, 4, generator=generator) * 0.4 + 0.3,
            )
            for n in counts
        ]
    )


@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (3, 60)])
@pytest.mark.parametrize("queries", [1, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_finite_whatever_the_number_of_objects(
    counts: tuple[int, int], queries: int, dtype: torch.dtype
) -> None:
    model, targets = detector(num_queries=queries, practice=2), objects(*counts)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = model(images(), targets, torch.Generator().manual_seed(3))
        total = torch.stack(list(losses(found, targets).values())).sum()
    assert total.isfinite()
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_practice_does_not_change_the_other_answers() -> None:
    model, targets = detector(practice=3), objects(2, 5)
    plain, trained = model(images()), model(images(), targets, torch.Generator().manual_seed(3))
    assert plain.practice is None and trained.practice.logits.shape == (2, 2, 15, 3)
    for one, other in zip(plain[:6], trained[:6], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    # Each object has three queries in its own image, the place of a missing object none.
    assert (trained.practice.target[0] >= 0).sum() == 6 and set(trained.practice.target[0].tolist()) == {
        -1,
        0,
        1,
    }


@torch.no_grad()
def test_practice_starts_near_its_object() -> None:
    targets = objects(4, 1)
    made = practice(targets, [(8, 12), (4, 6)], 50, 20, torch.Generator().manual_seed(3))
    assert made is not None
    real = made.target >= 0
    overlap = iou(to_corners(made.boxes[real]), to_corners(targets.boxes[made.target[real]]))
    assert overlap.mean() > 0.3 and overlap.std() > 0.1
    # The cell is the one under the centre, on either map.
    first = made.cell < 96
    column = torch.where(first, made.cell % 12 / 12, (made.cell - 96) % 6 / 6)
    width = torch.where(first, 1 / 12, 1 / 6)
    assert ((made.boxes[..., 0] >= column - 1e-5) & (made.boxes[..., 0] <= column + width + 1e-5))[real].all()
    assert 0.3 < first[real].float().mean() < 0.7


def test_the_cells_around_a_likely_one_leave_queries_to_other_objects() -> None:
    logits = torch.full((1, 20, 2), -5.0)
    grid = logits[0, :16, 0].view(4, 4)
    grid[:2, :2] = torch.tensor([[2.0, 1.0], [1.0, 1.5]])  # one object, seen by four cells
    grid[3, 3] = -1.0  # an unlikely object
    logits[0, 18, 1] = 0.0  # another on the coarser map
    order = ranks(logits, [torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 2, 2)])[0].argsort(descending=True)
    assert order[:4].tolist() == [0, 18, 15, 5]


def test_an_object_teaches_a_cell_of_its_own_even_where_it_is_smaller_than_a_cell() -> None:
    cells = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.75, 0.5, 0.5, 1.0]])
    tiny = Targets.of([(torch.tensor([1]), torch.tensor([[0.6, 0.5, 0.01, 0.01]]))])
    logits = torch.zeros(1, 2, 3)
    image, cell, target, aim = chosen_cells(logits, cells[None], cells, tiny)
    assert (image.tolist(), cell.tolist(), target.tolist()) == ([0], [1], [0]) and aim.isfinite().all()


@torch.no_grad()
def test_a_batch_teaches_the_sum_of_what_its_images_teach() -> None:
    model, targets = detector().eval(), objects(3, 1)
    both = losses(model(images()), targets)
    parts = [
        losses(model(images()[i : i + 1]), Targets(targets.labels[s], targets.boxes[s], (n,)))
        for i, (s, n) in enumerate([(slice(0, 3), 3), (slice(3, 4), 1)])
    ]
    for name, value in both.items():
        torch.testing.assert_close(value, parts[0][name] + parts[1][name], rtol=1e-4, atol=1e-4)


def test_the_varifocal_loss_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=generator).mul(4).requires_grad_()
    at, wanted = (
        (torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2]), torch.tensor([1, 1, 0])),
        torch.tensor([0.7, 0.2, 0.0]),
    )
    total = varifocal(logits, at, wanted)
    q = torch.zeros_like(logits).index_put_(at, wanted)
    p = logits.sigmoid()
    weight = torch.where(q > 0, q, 0.75 * p.detach() ** 2)
    expected = -(weight * (q * p.log() + (1 - q) * (1 - p).log())).sum()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)
    (one,), (other,) = torch.autograd.grad(total, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(one, other)


def test_it_learns_where_two_objects_are() -> None:
    model, pictures = detector(num_layers=1, scales=(1.0,), practice=2), images(1)
    pictures[:, :, 4:16, 4:20] += 3
    pictures[:, :, 18:30, 26:44] -= 3
    target = (
        torch.tensor([0, 2]),
        torch.tensor([[0.25, 0.3125, 1 / 3, 0.375], [0.7292, 0.75, 0.375, 0.375]]),
    )
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3)
    draws = torch.Generator().manual_seed(4)
    for _ in range(50):
        optimiser.zero_grad()
        wanted = Targets.of([target])
        torch.stack(list(losses(model(pictures, wanted, draws), wanted).values())).sum().backward()
        optimiser.step()
    found = model.eval()(pictures)
    best = found.logits[-1, 0].amax(-1).topk(2).indices
    order = found.logits[-1, 0][best].argmax(-1).argsort()
    assert sorted(found.logits[-1, 0][best].argmax(-1).tolist()) == [0, 2]
    torch.testing.assert_close(found.boxes[-1, 0][best[order]], target[1], atol=0.05, rtol=0)


def test_the_encoding_tells_boxes_apart() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.21], [0.51, 0.5, 0.2, 0.2]])
    codes = box_encoding(boxes, 32)
    assert codes.shape == (3, 32) and torch.pdist(codes).min() > 0.05


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(SettingsError, match="scales"):
        detector(scales=(4.0,))
    with pytest.raises(SettingsError, match="heads"):
        detector(dim=30)
