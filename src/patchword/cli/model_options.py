"""Options shared by every command with a MODEL: facts that its files may not specify."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from patchword.errors import SettingsError
from patchword.formats.detection.layout import DetectorOptions, without_detector_facts
from patchword.formats.facts import Options
from patchword.model.config import Activation
from patchword.settings import read_text

_KEPT = "patchword.model_options"
Command = Callable[..., Any]


def _keep(read: Callable[[str, Any], Any]) -> Callable[[click.Context, click.Parameter, Any], None]:
    """Store the value in the context instead of passing it to the command, so that commands need not declare it."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        stored = value if value is None else read(param.opts[0], value)
        ctx.meta.setdefault(_KEPT, {})[param.name] = stored

    return callback


def _unchanged(name: str, value: Any) -> Any:
    return value


def size(name: str, text: str) -> tuple[int, int]:
    """ "224" or "224x320" → (rows, columns)."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(f"{name} is {text!r}", "give pixels, e.g. 224, or HEIGHTxWIDTH, e.g. 224x320")
    return int(parts[0]), int(parts[-1])


def numbers(name: str, text: str) -> tuple[float, ...]:
    """ "0.5" or "0.485,0.456,0.406" → one number for all channels, or one per channel."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"{name} is {text!r}", "give numbers separated by commas, e.g. 0.485,0.456,0.406"
        ) from error


def class_names(name: str, path: str) -> tuple[str, ...]:
    """The lines of a file: one class per line, in the order of the head."""
    try:
        lines = read_text(path).splitlines()
    except SettingsError as error:
        raise SettingsError(f"{name} {error.message}", "give a text file with one name per line") from error
    return tuple(line.strip() for line in lines if line.strip())


def _option(
    flag: str, metavar: str, text: str, read: Callable[[str, Any], Any] = _unchanged, **how: Any
) -> Any:
    return click.option(flag, metavar=metavar, help=text, callback=_keep(read), expose_value=False, **how)


_SIZES = (
    _option(
        "--image-size",
        "SIZE",
        "Pixels per side, or HEIGHTxWIDTH; also the shape of a non-square position grid.",
        size,
    ),
    _option("--patch-size", "SIZE", "Use the model with another patch size (FlexiViT).", size),
)
_FACTS = (
    _option(
        "--num-heads", "N", "Attention heads, if the file does not specify them.", type=click.IntRange(1)
    ),
    _option(
        "--pool",
        "KIND",
        "class, first or mean, if the file does not specify it.",
        type=click.Choice(("class", "first", "mean")),
    ),
    _option(
        "--act",
        "KIND",
        "gelu, gelu_tanh or quick_gelu, if the file does not specify it.",
        type=click.Choice(get_args(Activation)),
    ),
    _option("--eps", "X", "Epsilon of the normalisation layers.", type=float),
    _option("--mean", "X,X,X", "Pixel mean per channel, from 0 to 1.", numbers),
    _option("--std", "X,X,X", "Pixel standard deviation per channel.", numbers),
    _option("--head", "FILE", "Separate file of a linear head (DINO).", lambda name, value: Path(value)),
    _option("--class-names", "FILE", "Text file of class names, one per line.", class_names),
    _option("--below", "PREFIX", "Read only tensors whose names start with PREFIX."),
    _option(
        "--drop",
        "PATTERN",
        "Ignore tensors matching this name or pattern ('head.*'); repeatable.",
        lambda name, value: tuple(value),
        multiple=True,
    ),
    click.option(
        "--allow-partial",
        is_flag=True,
        help="Accept a file with missing backbone tensors; they are randomly initialised and listed.",
        callback=_keep(_unchanged),
        expose_value=False,
    ),
)


_DECODER = (
    _option(
        "--decoder-num-heads",
        "N",
        "Attention heads of a masked autoencoder's decoder, if the file does not specify them.",
        type=click.IntRange(1),
    ),
    click.option(
        "--norm-pix-loss/--no-norm-pix-loss",
        default=None,
        help="Whether that decoder predicts normalised patches, if the file does not specify it.",
        callback=_keep(_unchanged),
        expose_value=False,
    ),
)


def decoder_options(command: Command) -> Command:
    """Add the options about a masked autoencoder's decoder."""
    return _with(_DECODER, command)


_DETECTOR = (
    click.option(
        "--dilation/--no-dilation",
        default=None,
        help="Whether the last stage of a DETR's trunk is dilated (DC5), if the file does not specify it.",
        callback=_keep(_unchanged),
        expose_value=False,
    ),
    _option(
        "--mid-image-size",
        "SIZE",
        "Size of the images that a YOLOS' positions between the blocks were made for, if the file does not specify it.",
        size,
    ),
)


def detector_options(command: Command) -> Command:
    """Add the options about facts that only a detector's files may lack."""
    return _with(_DETECTOR, command)


def model_options(command: Command) -> Command:
    """Add all options above to a command."""
    return start_options(_with(_SIZES, command))


def start_options(command: Command) -> Command:
    """Add the options about starting weights; in `train`, image and patch size belong to the new model."""
    return _with(_FACTS, command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def given_options() -> Options:
    """The model options given to the running command. Raises: SettingsError for one that only a detector has."""
    return without_detector_facts(given_detector_options())


def given_detector_options() -> DetectorOptions:
    """As `given_options`, for a model that may be a detector."""
    kept = dict(click.get_current_context().meta.get(_KEPT, {}))
    kept["classes"] = kept.pop("class_names", None)
    return DetectorOptions(**kept)
