"""A config written is the config read; its cost is the module's, whatever the parts."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from patchword import settings
from patchword.errors import SettingsError
from patchword.model.config import BlockConfig, HeadConfig, ImageConfig, PatchConfig, ViTConfig
from patchword.model.cost import cost
from patchword.model.kinds import GroupNormConfig
from patchword.model.vit import ViT
from support.vit_configs import ALL, NORMS, OTHERS, POOLS, POSITIONS, tiny


@pytest.mark.parametrize("config", ALL.values(), ids=list(ALL))
def test_plain_dicts_and_toml_give_the_config_back(
    config: ViTConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert settings.from_plain(ViTConfig, settings.to_plain(config)) == config
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    file.write_text(settings.to_toml(config), encoding="utf-8")
    assert settings.from_plain(ViTConfig, settings.read_toml(file)) == config


@hypothesis_settings(max_examples=60)
@given(
    positions=st.sampled_from(list(POSITIONS.values())),
    norm=st.sampled_from(list(NORMS.values())),
    other=st.sampled_from([*OTHERS.values(), *POOLS.values()]),
)
def test_any_mixture_of_parts_is_refused_in_words_or_costs_what_it_says(
    positions: ViTConfig, norm: ViTConfig, other: ViTConfig
) -> None:
    try:
        config = replace(other, positions=positions.positions, norm=norm.norm)
    except SettingsError as error:
        assert error.fix
        return
    # Not on meta, where every operation is Python: these models are small.
    model = ViT(config).eval()
    width = config.head.num_classes or config.head.projection or config.embed_dim
    with torch.inference_mode():
        answer = model(torch.zeros(1, config.image.channels, *config.image.size))
    assert answer.shape == (1, width)
    assert sum(p.numel() for p in model.parameters()) == cost(config).parameters


def _made(**parts: Any) -> ViT | None:
    """The model with every parameter moved off its start, or None where the parts are refused in words."""
    try:
        config = tiny(**parts)
    except SettingsError as error:
        assert error.fix
        return None
    generator = torch.Generator().manual_seed(0)
    model = ViT(config, generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def test_with_every_norm_before_every_pool_the_answer_depends_on_the_image_or_they_are_refused() -> None:
    x = torch.randn(3, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    blocks = [("pre", "tokens"), ("pre", "pooled"), ("post", "none"), ("res_post", "none")]
    norms = [part.norm for name, part in NORMS.items() if name == part.norm.kind]
    norms.append(GroupNormConfig(num_groups=24))
    refused = set()
    for norm, pool, (order, place) in itertools.product(norms, POOLS.values(), blocks):
        head = HeadConfig(pool=pool.head.pool, norm=place, num_classes=5)
        model = _made(depth=1, norm=norm, head=head, block=BlockConfig(order=order))
        if model is None:
            refused.add((norm.kind, head.pool.kind, order, place))
            continue
        with torch.inference_mode():
            answers = model(x)
        assert (answers - answers[:1])[1:].abs().amin() > 1e-4, (norm, head, order)
    assert ("instance", "mean", "pre", "tokens") in refused and (
        "instance",
        "mean",
        "post",
        "none",
    ) in refused
    assert {kind for kind, *_ in refused} == {"instance", "group"}


def test_through_every_pool_each_kind_of_positions_tells_a_permutation_or_they_are_refused() -> None:
    """In one block, where there is no second that could carry it to the pooled token."""
    x = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    swapped = torch.cat((x[..., 12:], x[..., :12]), -1)
    refused = set()
    kinds = [part for name, part in POSITIONS.items() if name == part.positions.kind]
    for part, pool in itertools.product(kinds, POOLS.values()):
        model = _made(depth=1, positions=part.positions, tokens=part.tokens, head=pool.head)
        if model is None:
            refused.add((part.positions.kind, pool.head.pool.kind))
            continue
        with torch.inference_mode():
            a, b = model(x), model(swapped)
        assert (a - b).abs().max() > 1e-3 * a.abs().max(), (part.positions, pool.head)
    between = set(
        itertools.product(("learned_between",), POOLS)
    )  # there is nothing between the blocks of one block
    assert (
        refused
        == set(itertools.product(("relative_bias", "relative_mlp"), ("class", "first", "prefix"))) | between
    )


sides = st.integers(1, 40)


@hypothesis_settings(max_examples=40)
@given(
    image=st.tuples(sides, sides),
    patch=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    at=st.tuples(sides, sides),
)
def test_any_rectangle_in_any_patches_is_answered(
    image: tuple[int, int], patch: tuple[int, int], at: tuple[int, int]
) -> None:
    config = replace(ALL["learned"], image=ImageConfig(size=image), patch=PatchConfig(size=patch))
    model = ViT(config).eval()
    with torch.inference_mode():
        tokens = model.forward_features(torch.randn(1, 3, *at))
    rows, columns = config.grid_of(at)
    assert (rows - 1) * patch[0] < at[0] <= rows * patch[0]
    assert tokens.shape == (1, rows * columns + 1, config.dim) and tokens.isfinite().all()
