"""timm's VisionTransformer, plain: a hub folder with config.json (the first of timm's layouts)."""

from collections.abc import Iterable

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.facts import Facts
from patchword.checkpoints.layout import Description, Drop, Layout, Rule, rule
from patchword.checkpoints.layouts.blocks import both, norm, patches, plain_block, token
from patchword.checkpoints.ops import Parted
from patchword.images.preprocess import Preprocess
from patchword.model.config import AttentionConfig, HeadConfig, ImageConfig, MLPConfig, PatchConfig, ViTConfig


class TimmViT(Layout):
    name = "timm"
    title = "timm VisionTransformer"

    def recognise(self, checkpoint: Checkpoint) -> str | None:
        if "architecture" in checkpoint.config_json and checkpoint.has(
            "patch_embed.proj.weight", "cls_token"
        ):
            return "config.json names a timm architecture"
        return None

    def describe(self, checkpoint: Checkpoint, facts: Facts) -> Description:
        dim, channels, *patch = checkpoint.shape_of("patch_embed.proj.weight", 4)
        size = (patch[0], patch[1])
        model_args = checkpoint.config_json.get("model_args", {})
        given = checkpoint.config_json.get("pretrained_cfg", {})
        image = model_args.get("img_size") or given.get("input_size", [None])[1:]
        rows = checkpoint.shape("pos_embed")[1] - 1
        grid = facts.grid(rows, size, (tuple(image) if image else None, "config.json"))
        config = ViTConfig(
            image=ImageConfig(size=(grid[0] * size[0], grid[1] * size[1]), channels=channels),
            patch=PatchConfig(size=size),
            dim=dim,
            depth=checkpoint.depth("blocks.{}.norm1.weight"),
            attention=AttentionConfig(
                num_heads=facts.heads(dim, (model_args.get("num_heads"), "config.json"))
            ),
            mlp=MLPConfig(hidden=checkpoint.shape("blocks.0.mlp.fc1.weight")[0]),
            head=HeadConfig(num_classes=checkpoint.shape("head.weight")[0]),
        )
        mean, std = tuple(given["mean"]), tuple(given["std"])
        preprocess = Preprocess.simple(config.image.size, channels, mean, std)
        return Description(
            config=config,
            preprocess=facts.preprocess((preprocess, "config.json: pretrained_cfg"), (None, "")),
        )

    def rules(self, description: Description) -> Iterable[Rule | Drop]:
        config = description.config
        rows = config.grid_size[0] * config.grid_size[1] + 1
        yield from patches(config)
        yield token("cls_token", "prefix.class_token", config)
        yield rule("pos_embed", ("positions.prefix", "positions.grid"), Parted((1, rows, config.dim)))
        for index in range(config.depth):
            yield from plain_block(index, config)
        yield from norm("norm", "norm", config)
        yield from both("head", "head")
