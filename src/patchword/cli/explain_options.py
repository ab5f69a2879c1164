"""Options of `patchword explain` about methods, and which of all its options go together."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from patchword.cli.options import kept_option, kept_values
from patchword.errors import SettingsError
from patchword.explaining.settings import FILLS, FUSES, MANY, PIXEL_FILLS

if TYPE_CHECKING:
    from patchword.explaining.settings import MethodSettings, ScoreSettings

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.method_options"
# Options that have a meaning without a model, and options of a masked autoencoder's decoder.
_WITHOUT_MODEL = frozenset(
    (
        *("arguments", "redundancy", "output", "as_json", "count", "seed", "image_size", "patch_size"),
        *("split", "split_seed", "image_column", "label_column", "split_column", "class_level"),
        *("max_pixels", "value_range"),
    )
)
_OF_DECODER = frozenset(("mask_ratio", "decoder_num_heads", "norm_pix_loss"))
# Option → the field of `MethodSettings` that it sets.
_SETTINGS = {"layers": "layers", "heads": "heads", "fuse": "fuse", "discard": "discard", "start": "start"}
_SETTINGS |= {"steps": "steps", "fill": "fill"}
_OPTIONS = (
    kept_option(
        _KEPT,
        "--method",
        "methods",
        multiple=True,
        metavar="NAME[,NAME]",
        help="How to explain, listed below; repeatable. [default: the most faithful one]",
    ),
    kept_option(
        _KEPT,
        "--class",
        "class_name",
        metavar="NAME",
        help="Explain this class. [default: the most probable one of each image]",
    ),
    kept_option(
        _KEPT, "--layers", metavar="N,N|all", help="Blocks from 0, or -1 for the last. [default: the last]"
    ),
    kept_option(_KEPT, "--heads", metavar="N,N|all", help="Heads of attention. [default: their mean]"),
    kept_option(_KEPT, "--fuse", type=click.Choice(FUSES), help="How rollout joins heads. [default: mean]"),
    kept_option(
        _KEPT,
        "--discard",
        type=float,
        metavar="X",
        help="Share of small weights that rollout drops. [default: 0]",
    ),
    kept_option(
        _KEPT, "--start", type=int, metavar="N", help="First block of rollout and relevance. [default: 0]"
    ),
    kept_option(
        _KEPT,
        "--steps",
        type=click.IntRange(1),
        metavar="N",
        help="Steps of integrated methods. [default: 64]",
    ),
    kept_option(
        _KEPT,
        "--fill",
        type=click.Choice(FILLS),
        help="What replaces a patch in occlusion; where integrated methods start. [default: mean]",
    ),
    kept_option(
        _KEPT,
        "--score",
        type=click.IntRange(0),
        metavar="N",
        help=f"Measure faithfulness on N images; 0 for none. [default: 4; of more than {MANY} images 2]",
    ),
    kept_option(
        _KEPT,
        "--score-fill",
        "score_fills",
        type=click.Choice(PIXEL_FILLS),
        multiple=True,
        help=f"What removed patches show then; repeatable. [default: mean and blur; of more than {MANY} images mean]",
    ),
)


def method_options(command: F) -> F:
    """Add the options above to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_methods() -> tuple[list[str], str | None]:
    """The methods asked for, and the class."""
    kept = kept_values(_KEPT)
    names = [name.strip() for text in kept["methods"] for name in text.split(",") if name.strip()]
    return names, kept["class_name"]


def given_method_settings() -> "MethodSettings":
    from patchword.explaining.settings import MethodSettings

    kept = kept_values(_KEPT)
    given = {field: kept[option] for option, field in _SETTINGS.items() if kept[option] is not None}
    for name in ("layers", "heads"):
        if name in given:
            given[name] = _numbers(f"--{name}", given[name])
    return MethodSettings(**given)


def given_score_settings(images: int, seed: int) -> "ScoreSettings":
    from patchword.explaining.settings import score_settings

    kept = kept_values(_KEPT)
    return score_settings(images, kept["score"], tuple(kept["score_fills"]) or None, seed)


def _numbers(option: str, text: str) -> Any:
    if text.strip().lower() == "all":
        return "all"
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(
            f"{option} is {text!r}", "give numbers separated by commas, such as 0,11, or all"
        ) from None


def asks_for_maps(ctx: click.Context) -> bool:
    """Whether an option of `method_options` was given."""
    return any(_is_given(ctx, name) for name in kept_values(_KEPT))


def refuse_model_options(ctx: click.Context) -> None:
    """Raises: SettingsError for an option that has no effect without a model."""
    for param in ctx.command.params:
        name = param.name or ""
        if _is_given(ctx, name) and name not in _WITHOUT_MODEL:
            raise SettingsError(
                f"{param.opts[0]} only applies to a model, and --redundancy uses none",
                f"remove {param.opts[0]}",
            )


def refuse_method_options(ctx: click.Context, model: str) -> None:
    """Raises: SettingsError if an option of `method_options` is given for a detector."""
    for param in ctx.command.params:
        if param.name in kept_values(_KEPT) and _is_given(ctx, param.name):
            raise SettingsError(
                f"{param.opts[0]} applies to classifiers and backbones, and {model} predicts boxes",
                f"remove {param.opts[0]}",
            )


def refuse_decoder_options(ctx: click.Context) -> None:
    """Raises: SettingsError for an option that only applies to reconstructions."""
    for param in ctx.command.params:
        if param.name in _OF_DECODER and _is_given(ctx, param.name):
            raise SettingsError(
                f"{param.opts[0]} only applies to the reconstructions of a masked autoencoder",
                f"remove {param.opts[0]}",
            )


def refuse_unused_settings(ctx: click.Context, names: list[str]) -> None:
    """Raises: SettingsError for a setting that none of the methods reads."""
    from patchword.explaining.methods.table import METHODS, methods_of

    used = {field for method in methods_of(names) for field in method.uses}
    for option, field in _SETTINGS.items():
        if _is_given(ctx, option) and field not in used:
            users = [name for name, method in METHODS.items() if field in method.uses]
            listed = ", ".join(users[:-1]) + " and " * (len(users) > 1) + users[-1]
            raise SettingsError(
                f"--{option} only applies to {listed}"
                + ("" if names else ", and no method is given: the most faithful one is chosen"),
                f"add --method {users[0]}, or remove --{option}",
            )


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
