"""All layouts that patchword reads and writes. To add one, add a module here and list it in `LAYOUTS`."""

from patchword.formats.layout import Layout
from patchword.formats.layouts.aimv2 import AIMv2
from patchword.formats.layouts.beit import BEiT, BEiT2
from patchword.formats.layouts.clip import OpenAIClip, OpenClip
from patchword.formats.layouts.clip_trunk import OpenClipTrunk
from patchword.formats.layouts.dinov2 import DINOv2
from patchword.formats.layouts.dinov3 import DINOv3
from patchword.formats.layouts.eva import EVA
from patchword.formats.layouts.eva_clip import EVAClip
from patchword.formats.layouts.google import BigVision, GoogleViT
from patchword.formats.layouts.jeonsworld import JeonsworldViT
from patchword.formats.layouts.lucidrains import LucidrainsViT
from patchword.formats.layouts.mae_pytorch import MAEPytorch
from patchword.formats.layouts.mmpretrain import MMPretrain
from patchword.formats.layouts.moco import MoCo
from patchword.formats.layouts.pe import PE
from patchword.formats.layouts.plain import DINO, IJEPA, MAE, DeiT, DeiT3
from patchword.formats.layouts.prithvi import Prithvi
from patchword.formats.layouts.radio import RADIO
from patchword.formats.layouts.refused import REFUSED, Refused
from patchword.formats.layouts.timm import Timm
from patchword.formats.layouts.timm_facts import refuse_timm
from patchword.formats.layouts.tips import TIPS
from patchword.formats.layouts.torchvision import TorchvisionViT
from patchword.formats.layouts.transformers_aimv2 import TransformersAIMv2
from patchword.formats.layouts.transformers_beit import TransformersBEiT, TransformersData2Vec
from patchword.formats.layouts.transformers_blip import TransformersBLIP, TransformersBLIP2
from patchword.formats.layouts.transformers_clip import (
    TransformersCLIP,
    TransformersSigLIP,
    TransformersSigLIP2NaFlex,
)
from patchword.formats.layouts.transformers_dino import (
    TransformersDINOv2,
    TransformersDINOv2Registers,
    TransformersDINOv3,
)
from patchword.formats.layouts.transformers_internvl import TransformersInternViT
from patchword.formats.layouts.transformers_pixio import TransformersPixio
from patchword.formats.layouts.transformers_tips import TransformersTIPSv2
from patchword.formats.layouts.transformers_towers import (
    TransformersGIT,
    TransformersIdefics,
    TransformersJanus,
    TransformersMLCD,
    TransformersOwlViT,
    TransformersPhi4,
)
from patchword.formats.layouts.transformers_vit import (
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
    Prithvi(),
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
    TransformersAIMv2(),
    TransformersBLIP(),
    TransformersBLIP2(),
    TransformersInternViT(),
    TransformersPixio(),
    TransformersTIPSv2(),
    TransformersMLCD(),
    TransformersOwlViT(),
    TransformersGIT(),
    TransformersIdefics(),
    TransformersPhi4(),
    TransformersJanus(),
    MMPretrain(),
)
