"""From the prediction of a masked autoencoder to pixels."""

import torch

from patchword.model.mae import MAE, Masking
from patchword.model.reconstruct import reconstruct, seen_statistics
from support.autoencoder import small_mae


class Oracle(MAE):
    """Predicts the truth."""

    def predict(self, images, masking):
        return self.targets(self.patches(images))


def oracle(norm_targets):
    mae = small_mae(norm_targets=norm_targets)
    return Oracle(mae.vit, mae.config).eval()


def images_of(seed=0):
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.3


def noise_of(seed=1):
    return torch.rand(2, 16, generator=torch.Generator().manual_seed(seed))


def test_the_errors_are_the_loss_of_training():
    for norm_targets in (True, False):
        mae, images = small_mae(norm_targets=norm_targets), images_of()
        found = reconstruct(mae, images, mae.masking(noise_of()))
        assert torch.allclose(found.errors, mae.errors(images, noise_of()).detach(), atol=1e-5)


def test_the_truth_predicted_gives_the_image_if_its_statistics_are_borrowed():
    mae, images = oracle(norm_targets=True), images_of()
    found = reconstruct(mae, images, mae.masking(noise_of()))
    assert found.borrowed is not None
    assert torch.allclose(found.borrowed, mae.patches(images), atol=1e-5)
    assert not torch.allclose(found.patches, mae.patches(images), atol=0.1)
    assert found.errors.max() < 1e-10
    plain = oracle(norm_targets=False)
    found = reconstruct(plain, images, plain.masking(noise_of()))
    assert found.borrowed is None and torch.allclose(found.patches, plain.patches(images))


def test_the_honest_picture_knows_nothing_of_hidden_patches_and_the_other_does():
    mae, images = small_mae(), images_of()
    masking = mae.masking(noise_of())
    hidden = masking.mask.reshape(2, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3) > 0
    spoilt = torch.where(hidden, images * 5 + 3, images)
    first, second = reconstruct(mae, images, masking), reconstruct(mae, spoilt, masking)
    assert torch.allclose(first.patches, second.patches, atol=1e-5)
    assert not torch.allclose(first.borrowed, second.borrowed, atol=0.1)


def test_statistics_are_kept_where_seen_interpolated_between_and_copied_beyond():
    # A grid of 3 x 3; 3 and 5 (left and right of the middle) are visible.
    values = torch.arange(9.0).reshape(1, 1, 9) * 10
    found = seen_statistics(values, Masking(torch.tensor([[3, 5, 0, 1, 2, 4, 6, 7, 8]]), 2), (3, 3))
    assert found[0, 0].tolist() == [30, 30, 50, 30, 40, 50, 30, 30, 50]
