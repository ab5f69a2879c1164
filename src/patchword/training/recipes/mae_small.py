"""Pre-train a masked autoencoder on a few hundred to a few hundred thousand images of one's own.

    patchword pretrain images/
    patchword pretrain images/ --weights NAME      continue from trained weights

The masking, targets and views are those of the recipe mae; the model without --model is that of the recipe scratch for as many
images, so that its weights can start such a run. The published rate belongs to batches of 4,096; for small ones it is 6e-4 for
256 images and grows with the square root of the batch. The decoder is the published one for encoders from 768 channels on, and
4 blocks of half the width for narrower ones: a decoder larger than its encoder costs most of the time.
From weights: at a fifth of the rate, earlier blocks slower (0.75 each), a tenth of the epochs with the encoder frozen while the
new decoder is fitted.
"""

from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.masked import Masked, masked_settings

DESCRIPTION = "masked autoencoder, sized for the data"
WANTED, FEWEST_STEPS, MOST_STEPS = 200, 2000, 50_000
FROM_WEIGHTS_SHARE = 0.2


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these images, and the choices as text."""
    rate = 6e-4 * (1.0 if facts.weights is None else FROM_WEIGHTS_SHARE)
    batch = 64
    steps = max(facts.num_images // batch, 1)
    epochs = round(min(max(WANTED, FEWEST_STEPS / steps), max(MOST_STEPS / steps, 1)))
    optim = OptimSettings(method="adamw", lr=rate, lr_rule="sqrt", weight_decay=0.05, beta2=0.95)
    return masked_settings(
        facts,
        overlay,
        Masked(
            name="mae-small", optim=optim, batch=batch, epochs=epochs, warmup=0.1, published_decoder=False
        ),
    )
