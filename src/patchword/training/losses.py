"""Training losses. Each is a sum over the images of a batch, so that micro-batches and processes add up."""

import torch
import torch.nn.functional as F
from torch import Tensor


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """labels [B] → float [B, C] with a one at the label."""
    return F.one_hot(labels, num_classes).float()


def smoothed(targets: Tensor, smoothing: float) -> Tensor:
    """Targets [B, C], whose rows sum to 1, with the share `smoothing` of each row spread over all classes.

    Source: Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    num_classes = targets.shape[1]
    return targets * (1 - smoothing) + smoothing / num_classes


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the batch of w · -Σ target · log softmax, in float32 whatever the logits are in.

    logits, targets [B, C]. weights [B]: w of each image; None for 1.
    """
    if weights is not None:
        targets = targets * weights[:, None]
    return F.cross_entropy(logits.float(), targets, reduction="sum")


def binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum over the batch of w · the mean over the classes of -(t · log p + (1 - t) · log(1 - p)), p = sigmoid(logit).

    logits, targets [B, C], weights [B]. Divided by the number of images, it is the mean over images and classes, as in
    DeiT III (Touvron et al. 2022, arXiv 2204.07118) and timm.
    """
    terms = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean(1)
    return (terms if weights is None else terms * weights).sum()


def multi_label(logits: Tensor, targets: Tensor, positive: Tensor) -> Tensor:
    """Sum over the batch of the mean over the classes of -(w · t · log p + (1 - t) · log(1 - p)). positive [C]: w."""
    terms = F.binary_cross_entropy_with_logits(logits.float(), targets, pos_weight=positive, reduction="none")
    return terms.mean(1).sum()


def focal(logits: Tensor, targets: Tensor, gamma: float, positive: Tensor) -> Tensor:
    """Like `multi_label`, each term times |t - p|^gamma.

    Source: Lin et al. 2017 (arXiv 1708.02002), equation 4; for targets between 0 and 1 as in Li et al. 2020 (arXiv
    2006.04388), equation 5.
    """
    logits = logits.float()
    terms = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=positive, reduction="none")
    return (terms * (targets - logits.sigmoid()).abs() ** gamma).mean(1).sum()


def above(targets: Tensor, threshold: float) -> Tensor:
    """Targets [B, C] as 1 above the threshold, else 0: each class that was mixed in is present or not.

    Source: Wightman et al. 2021 (arXiv 2110.00476), section 4; `bce_target_thresh` in timm.
    """
    return (targets > threshold).to(targets)


def hard_distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Sum over the batch of the cross-entropy with the teacher's first class. logits, teacher [B, C].

    Source: Touvron et al. 2021 (arXiv 2012.12877), equation 3.
    """
    return F.cross_entropy(logits.float(), teacher.argmax(1), reduction="sum")


def soft_distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum over the batch of T² · KL(softmax(teacher / T) || softmax(logits / T)). logits, teacher [B, C].

    T² keeps the size of the gradient at any temperature. Source: Hinton et al. 2015 (arXiv 1503.02531), section 2;
    Touvron et al. 2021 (arXiv 2012.12877), equation 2. DeiT's own code also divides by the number of classes.
    """
    ours = F.log_softmax(logits.float() / temperature, dim=1)
    theirs = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(ours, theirs, reduction="sum", log_target=True) * temperature**2


# Classes of unequal size ------------------------------------------------------------------


def class_weights(counts: Tensor, strength: float) -> Tensor:
    """Weights [C] in proportion to counts^-strength, whose mean over the counted images is 1. counts [C].

    With strength 1 this is N / (C · count), so every class has the same sum. Classes without images have weight 0.
    """
    present = counts > 0
    weights = torch.where(present, counts.double().clamp(min=1) ** -strength, 0.0)
    return (weights * counts.sum() / (weights * counts).sum()).float()


def log_prior(counts: Tensor, strength: float) -> Tensor:
    """[C]: strength · log of each class's share of the images; counts [C]. A class without images counts as one image.

    Added to the logits in training, it makes the model without it answer as for classes of equal size.
    Source: Menon et al. 2021 (arXiv 2007.07314), equation 10.
    """
    filled = counts.double().clamp(min=1)
    return (strength * (filled / filled.sum()).log()).float()
