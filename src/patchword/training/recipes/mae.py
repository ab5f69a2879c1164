"""Pre-train a masked autoencoder as published.

    patchword pretrain imagenet/ --recipe mae --model ViT-B/16

AdamW at 1.5e-4 for 256 images, linear in the batch; betas 0.9 and 0.95; weight decay 0.05; warm-up of 40 of 800 epochs, cosine;
crops from 0.2 of the area, mirroring; 75 % of the patches hidden; a decoder of 8 blocks of 512 channels, standardised targets.
Source: He et al. 2022 (arXiv 2111.06377), table 8; facebookresearch/mae, PRETRAIN.md (batch 4096).
Published, not measured here: 83.6 % with ViT-B/16 after fine-tuning on ImageNet-1k, pre-trained for 1,600 epochs on 64 V100.
"""

from patchword.training.config import TrainSettings
from patchword.training.optim_settings import OptimSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts
from patchword.training.recipes.masked import Masked, masked_settings

DESCRIPTION = "masked autoencoder, as published for ImageNet"
EPOCHS, BATCH = 800, 4096


def settings_for(facts: DataFacts, overlay: Overlay) -> tuple[TrainSettings, list[Choice]]:
    """Return the settings for these images, and the choices as text."""
    optim = OptimSettings(
        method="adamw", lr=1.5e-4, lr_rule="linear", weight_decay=0.05, beta2=0.95, clip_grad=0.0
    )
    return masked_settings(
        facts,
        overlay,
        Masked(
            name="mae",
            optim=optim,
            batch=BATCH,
            epochs=EPOCHS,
            warmup=0.05,
            published_decoder=True,
            model="ViT-B/16",
        ),
    )
