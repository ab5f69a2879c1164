"""A config written is the config read; its cost is the module's, whatever the parts."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from patchword import settings
from patchword.errors import SettingsError
from patchword.model.config import ImageConfig, PatchConfig, ViTConfig
from patchword.model.cost import cost
from patchword.model.vit import ViT
from support.vit_configs import ALL, NORMS, OTHERS, POOLS, POSITIONS


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
    with torch.device("meta"):
        model = ViT(config)
        width = config.head.num_classes or config.head.projection or config.embed_dim
        answer = model.eval()(torch.empty(1, config.image.channels, *config.image.size))
    assert answer.shape == (1, width)
    assert sum(p.numel() for p in model.parameters()) == cost(config).parameters


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
