"""All layouts that patchword reads and writes. To add one, add a module here and list it in `LAYOUTS`."""

from patchword.checkpoints.layout import Layout
from patchword.checkpoints.layouts.aimv2 import AIMv2
from patchword.checkpoints.layouts.beit import BEiT, BEiT2
from patchword.checkpoints.layouts.clip import OpenAIClip, OpenClip
from patchword.checkpoints.layouts.clip_trunk import OpenClipTrunk
from patchword.checkpoints.layouts.dinov2 import DINOv2
from patchword.checkpoints.layouts.dinov3 import DINOv3
from patchword.checkpoints.layouts.eva import EVA
from patchword.checkpoints.layouts.eva_clip import EVAClip
from patchword.checkpoints.layouts.google import BigVision, GoogleViT
from patchword.checkpoints.layouts.jeonsworld import JeonsworldViT
from patchword.checkpoints.layouts.lucidrains import LucidrainsViT
from patchword.checkpoints.layouts.mae_pytorch import MAEPytorch
from patchword.checkpoints.layouts.moco import MoCo
from patchword.checkpoints.layouts.pe import PE
from patchword.checkpoints.layouts.plain import DINO, IJEPA, MAE, DeiT, DeiT3
from patchword.checkpoints.layouts.radio import RADIO
from patchword.checkpoints.layouts.refused import REFUSED, Refused
from patchword.checkpoints.layouts.timm import Timm
from patchword.checkpoints.layouts.timm_refused import refuse_timm
from patchword.checkpoints.layouts.tips import TIPS
from patchword.checkpoints.layouts.torchvision import TorchvisionViT
from patchword.checkpoints.layouts.transformers_beit import TransformersBEiT, TransformersData2Vec
from patchword.checkpoints.layouts.transformers_clip import (
    TransformersCLIP,
    TransformersSigLIP,
    TransformersSigLIP2NaFlex,
)
from patchword.checkpoints.layouts.transformers_dino import (
    TransformersDINOv2,
    TransformersDINOv2Registers,
    TransformersDINOv3,
)
from patchword.checkpoints.layouts.transformers_vit import (
    TransformersDeiT,
    TransformersIJepa,
    TransformersMAE,
    TransformersMSN,
    TransformersViT,
)

__all__ = ["LAYOUTS", "REFUSED", "Refused", "refuse_timm"]

LAYOUTS: tuple[Layout, ...] = (
    Timm(),
    TorchvisionViT(),
    LucidrainsViT(),
    JeonsworldViT(),
    GoogleViT(),
    BigVision(),
    OpenAIClip(),
    OpenClip(),
    OpenClipTrunk(),
    DeiT(),
    MAE(),
    DINO(),
    MoCo(),
    MAEPytorch(),
    DeiT3(),
    DINOv2(),
    DINOv3(),
    BEiT(),
    BEiT2(),
    EVA(),
    EVAClip(),
    AIMv2(),
    PE(),
    RADIO(),
    TIPS(),
    IJEPA(),
    TransformersViT(),
    TransformersDeiT(),
    TransformersMSN(),
    TransformersIJepa(),
    TransformersMAE(),
    TransformersBEiT(),
    TransformersData2Vec(),
    TransformersDINOv2(),
    TransformersDINOv2Registers(),
    TransformersDINOv3(),
    TransformersCLIP(),
    TransformersSigLIP(),
    TransformersSigLIP2NaFlex(),
)
