"""What to expect of a training from scratch on few images, said when it begins.

Measured with the recipe's own settings, one seed each, scored on images apart from those trained on:
    digits, 10 classes     10 a class 76.2 %, 30 a class 91.3 %; all 1,437 images 99.2 %
    flowers5, 5 classes    10 a class 46.3 %, 30 a class 58.0 %; all 1,500 images 76.2 %
by `patchword train FOLDER -o run.evaluate_every=1000 -o run.precision=float32` on folders with train/ and val/.
From weights that knew little (recipes/finetune.py) 66 % were reached on flowers5 where scratch had 56 % after as many rounds.
"""

from patchword.training.config import TrainSettings

FEW = 100  # images of each class
_NOTED = "measured: 46 to 76 % with 10 images of each class, 58 to 91 % with 30, 76 to 99 % with 150 to 300"


def expectation(settings: TrainSettings, num_images: int) -> str:
    """A sentence about accuracy, "" for a run from weights or on enough images."""
    classes = max(settings.model.head.num_classes, 1)
    each = num_images / classes
    if settings.run.weights or each >= FEW:
        return ""
    return (
        f"{each:.0f} training images for each class are few to train from scratch ({_NOTED}, on photographs of 5 "
        "flowers and scans of 10 digits); more images help most, and --weights gets further in the same time"
    )
