"""What a user says of one of patchword's own files: its card states every fact, so an option either changes how the
model is used, or is refused by name.
"""

from dataclasses import MISSING, fields, replace
from typing import Any

from patchword.checkpoints.card import ModelCard
from patchword.checkpoints.facts import OPTION, Fact, Options, flag_of, sized_as
from patchword.errors import SettingsError, plural

# The others are facts of the weights; the card has the value, or there is nothing to say.
_CHANGES = ("image_size", "mean", "std", "classes")


def with_options(card: ModelCard, options: Options, name: str) -> tuple[ModelCard, tuple[Fact, ...]]:
    """The card as the options change it, and what they changed. name: the file's, for messages.

    A size, mean and std are those that images are prepared with from now on; classes are new names for the outputs.
    A fact that agrees with the card passes.
    Raises: SettingsError for an option that contradicts the card, or that has no use for such a file.
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
    """Raises: SettingsError unless there is one name for each output of the head."""
    if len(names) == outputs:
        return
    has = f"the head has {plural(outputs, 'output')}" if outputs else "the model has no head"
    fix = f"give a name for each of the {outputs} outputs, in their order" if outputs else "leave it out"
    raise SettingsError(f"{name}: {flag_of('classes')} gives {plural(len(names), 'name')}, and {has}", fix)


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
    if option not in stated:
        raise SettingsError(
            f"{name}: {flag_of(option)} has no use here: a file that patchword wrote is whole", "leave it out"
        )
    if stated[option] != value:
        fix = "leave it out"
        if option == "patch_size":
            fix += "; `patchword adapt --to-patch-size` writes the model with another patch"
        raise SettingsError(
            f"{name}: {flag_of(option)} is {_text(value)}, and the file says {_text(stated[option])}", fix
        )


def _sized(card: ModelCard, size: tuple[int, int], name: str) -> Any:
    if not card.preprocess.fixed_size:
        raise SettingsError(
            f"{name}: {flag_of('image_size')} has no use here: each image keeps a size of its own",
            "leave it out",
        )
    if min(card.config.grid_of(size)) < 1:
        span = card.config.patch_span
        raise SettingsError(
            f"{name}: {flag_of('image_size')} is {_text(size)}, smaller than one patch",
            f"give at least {_text(span)}",
        )
    return sized_as(card.preprocess, size)


def _text(value: Any) -> str:
    """A size as the command takes it, anything else as it is."""
    return f"{value[0]}x{value[1]}" if isinstance(value, tuple) else f"{value}"
