"""Options for patchword's own files: the card states every fact, so an option either changes how the model is
used, or is refused by name.
"""

from dataclasses import MISSING, fields, replace
from typing import Any

from patchword.errors import SettingsError, plural
from patchword.formats.facts import OPTION, Fact, Options, flag_of
from patchword.images.preprocess import sized_as
from patchword.weights.card import ModelCard

# The others are facts about the weights: the card has the value, or the option does not apply.
_CHANGES = ("image_size", "mean", "std", "classes")


def with_options(card: ModelCard, options: Options, name: str) -> tuple[ModelCard, tuple[Fact, ...]]:
    """Apply the options to the card; return it with the changes. name: the file's name, for messages.
    Size, mean and std replace those of the preprocessing; classes are new names for the outputs.
    A fact that agrees with the card is accepted.

    Raises: SettingsError for an option that contradicts the card or does not apply to such a file.
    """
    given = {f.name: getattr(options, f.name) for f in fields(options) if _is_given(options, f)}
    for option, value in given.items():
        if option not in _CHANGES:
            _refuse_unless_same(card, option, value, name)
    if options.classes is not None:
        check_names(options.classes, card.config.head.num_classes, name)
        card = replace(card, classes=options.classes)
    preprocess = card.preprocess
    if options.image_size is not None:
        preprocess = _sized(card, options.image_size, name)
    if options.mean is not None:
        preprocess = replace(preprocess, mean=options.mean)
    if options.std is not None:
        preprocess = replace(preprocess, std=options.std)
    card = replace(card, preprocess=preprocess)
    return card, tuple(Fact(name=o, value=v, source=OPTION) for o, v in given.items() if o in _CHANGES)


def check_names(names: tuple[str, ...], outputs: int, name: str) -> None:
    """Raises: SettingsError unless there is one name per output of the head."""
    if len(names) == outputs:
        return
    has = f"the head has {plural(outputs, 'output')}" if outputs else "the model has no head"
    fix = f"give a name for each of the {outputs} outputs, in their order" if outputs else "remove it"
    raise SettingsError(f"{name}: {flag_of('classes')} gives {plural(len(names), 'name')}, but {has}", fix)


def _is_given(options: Options, field: Any) -> bool:
    default = field.default if field.default is not MISSING else field.default_factory()
    return bool(getattr(options, field.name) != default)


def _refuse_unless_same(card: ModelCard, option: str, value: Any, name: str) -> None:
    config = card.config
    stated = {
        "num_heads": config.attention.num_heads,
        "patch_size": config.patch.size,
        "pool": config.head.pool.kind,
        "act": config.mlp.activation,
        "eps": config.norm.eps,
    }
    if card.decoder is not None:
        stated |= {"decoder_num_heads": card.decoder.num_heads, "norm_pix_loss": card.decoder.norm_targets}
    if option not in stated:
        raise SettingsError(
            f"{name}: {flag_of(option)} does not apply: a file that patchword wrote is complete", "remove it"
        )
    if stated[option] != value:
        fix = "remove it"
        if option == "patch_size":
            fix += "; `patchword adapt --to-patch-size` writes the model with another patch"
        raise SettingsError(
            f"{name}: {flag_of(option)} is {_text(value)}, but the file states {_text(stated[option])}", fix
        )


def _sized(card: ModelCard, size: tuple[int, int], name: str) -> Any:
    if not card.preprocess.fixed_size:
        raise SettingsError(
            f"{name}: {flag_of('image_size')} does not apply: each image keeps its own size",
            "remove it",
        )
    if min(card.config.grid_of(size)) < 1:
        span = card.config.patch_span
        raise SettingsError(
            f"{name}: {flag_of('image_size')} is {_text(size)}, smaller than one patch",
            f"give at least {_text(span)}",
        )
    return sized_as(card.preprocess, size)


def _text(value: Any) -> str:
    """A size in the command's spelling, anything else unchanged."""
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else f"{value}"
