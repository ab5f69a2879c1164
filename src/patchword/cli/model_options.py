"""Options that every command with a MODEL shares: what no file says of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click

from patchword.checkpoints.facts import Options
from patchword.errors import SettingsError
from patchword.model.config import Activation
from patchword.settings import read_text

_KEPT = "patchword.model_options"
Command = Callable[..., Any]


def _keep(read: Callable[[str, Any], Any]) -> Callable[[click.Context, click.Parameter, Any], None]:
    """The value goes to the context, not to the command's arguments: eleven commands need not name it."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        said = value if value is None else read(param.opts[0], value)
        ctx.meta.setdefault(_KEPT, {})[param.name] = said

    return callback


def _as_it_is(name: str, value: Any) -> Any:
    return value


def size(name: str, text: str) -> tuple[int, int]:
    """ "224" or "224x320" → (rows, columns)."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise SettingsError(f"{name} is {text!r}", "write pixels as 224, or HEIGHTxWIDTH as 224x320")
    return int(parts[0]), int(parts[-1])


def numbers(name: str, text: str) -> tuple[float, ...]:
    """ "0.5" or "0.485,0.456,0.406" → one number for all channels, or one each."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"{name} is {text!r}", "write numbers as 0.485,0.456,0.406") from error


def class_names(name: str, path: str) -> tuple[str, ...]:
    """The lines of a file, one class each, in the order of the head."""
    try:
        lines = read_text(path).splitlines()
    except SettingsError as error:
        raise SettingsError(f"{name} {error.message}", "give a text file, one name a line") from error
    return tuple(line.strip() for line in lines if line.strip())


def _option(
    flag: str, metavar: str, text: str, read: Callable[[str, Any], Any] = _as_it_is, **how: Any
) -> Any:
    return click.option(flag, metavar=metavar, help=text, callback=_keep(read), expose_value=False, **how)


_SIZES = (
    _option(
        "--image-size",
        "SIZE",
        "Pixels a side, or HEIGHTxWIDTH; also the grid of a table that is no square.",
        size,
    ),
    _option("--patch-size", "SIZE", "Use the model with another patch (FlexiViT).", size),
)
_FACTS = (
    _option("--num-heads", "N", "Attention heads, where no file says.", type=click.IntRange(1)),
    _option(
        "--pool",
        "KIND",
        "class, first or mean, where no file says.",
        type=click.Choice(("class", "first", "mean")),
    ),
    _option(
        "--act",
        "KIND",
        "gelu, gelu_tanh or quick_gelu, where no file says.",
        type=click.Choice(get_args(Activation)),
    ),
    _option("--eps", "X", "Epsilon of the norms.", type=float),
    _option("--mean", "X,X,X", "Mean of the pixels, 0 to 1.", numbers),
    _option("--std", "X,X,X", "Standard deviation of the pixels.", numbers),
    _option("--head", "FILE", "A linear head's own file (DINO).", lambda name, value: Path(value)),
    _option("--class-names", "FILE", "Names of the classes, one a line.", class_names),
    _option("--below", "PREFIX", "Read only the tensors whose names begin with PREFIX."),
    _option(
        "--drop",
        "PATTERN",
        "Leave out tensors of this name or pattern ('head.*'); repeatable.",
        lambda name, value: tuple(value),
        multiple=True,
    ),
    click.option(
        "--allow-partial",
        is_flag=True,
        help="Take a file that lacks part of the backbone; it is drawn at random and named.",
        callback=_keep(_as_it_is),
        expose_value=False,
    ),
)


def model_options(command: Command) -> Command:
    """Adds the options above to a command."""
    return start_options(_with(_SIZES, command))


def start_options(command: Command) -> Command:
    """Those that tell of weights to begin from; image and patch size are there the new model's own."""
    return _with(_FACTS, command)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def said() -> Options:
    """What the user said of the model, in the command that is running."""
    kept = dict(click.get_current_context().meta.get(_KEPT, {}))
    kept["classes"] = kept.pop("class_names", None)
    return Options(**kept)
