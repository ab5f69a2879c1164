"""The `patchword` command: dispatches to the subcommands and turns errors into two lines and an exit code."""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from patchword.cli.console import say
from patchword.cli.streams import ReaderLeft, guard_streams
from patchword.cli.verbs import VERBS
from patchword.errors import PatchwordError, is_out_of_memory, near_text, nearest

USAGE_ERROR = 2
INTERRUPTED = 130


class Verbs(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return _command(name) if name in VERBS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise click.UsageError(f"no command {args[0]!r}{near_text(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in VERBS.items()])


def _command(verb: str) -> click.Command:
    module, _, attribute = VERBS[verb][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from patchword.cli.doctor import own_package

        click.echo(f"patchword {own_package().found or '(not installed, running from source)'}")
        ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Print the version."
)
def patchword() -> None:
    """Train and use Vision Transformers.

    \b
    patchword train flowers/              train a classifier on class folders
    patchword predict runs/flowers *.jpg  classify new images
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its exit code (see errors.py)."""
    guard_streams()
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Any exception other than a PatchwordError is a bug and propagates with its traceback; Python then exits with 1.
    """
    try:
        code = patchword.main(args=args, prog_name="patchword", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except PatchwordError as error:
        return _report(error.message, error.fix, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.UsageError as error:
        return _report(*_usage_message(error), USAGE_ERROR)
    except (KeyboardInterrupt, click.Abort):
        return _report("interrupted", "", INTERRUPTED)
    except ReaderLeft:
        return 0
    except Exception as error:
        if is_out_of_memory(error):
            return _report(
                f"not enough memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "use a smaller --batch-size, --image-size or model, or free memory",
                USAGE_ERROR,
            )
        if _torch_cannot_load(error):
            return _report(
                f"torch cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "run `patchword doctor`; it shows what is installed and the command that fixes it",
                USAGE_ERROR,
            )
        click.echo(
            "error: this is a bug in patchword; its traceback follows\n"
            "  fix: report it with your command, the traceback and the output of `patchword doctor`",
            err=True,
        )
        raise


def _torch_cannot_load(error: Exception) -> bool:
    """Whether `import torch` itself failed, because torch or a system library it needs is missing.

    A failed import leaves no torch in `sys.modules`.
    """
    if not isinstance(error, ImportError | OSError) or "torch" in sys.modules:
        return False
    frames = error.__traceback__
    while frames is not None:
        module = frames.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "torch":
            return True
        frames = frames.tb_next
    return isinstance(error, ModuleNotFoundError) and error.name == "torch"


def _report(message: str, fix: str, exit_code: int) -> int:
    say(f"error: {message}")
    if fix:
        say(f"  fix: {fix}")
    return exit_code


def _usage_message(error: click.UsageError) -> tuple[str, str]:
    """click's message, with the nearest option if one was mistyped."""
    context = error.ctx
    command = context.command_path if context else "patchword"
    if isinstance(error, click.NoSuchOption):
        advice = _advice(error.option_name, context.command) if context else ""
        return (
            f"{command} has no option {error.option_name}",
            f"{advice}see `{command} --help` for all options",
        )
    return error.format_message().rstrip("."), f"see `{command} --help`"


# Names that other programs use for our options and settings, if ours are spelt quite differently.
_SYNONYMS = {
    "learning_rate": "--lr",
    "wd": "-o optim.weight_decay=VALUE",
    "momentum": "-o optim.beta1=VALUE",
    "optimizer": "-o optim.method=VALUE",
    "optimiser": "-o optim.method=VALUE",
    "ema": "-o average.decay=VALUE",
    "pretrained": "--weights",
    "gpu": "--device",
}
_CUTOFF = 0.7


def _advice(option: str, command: click.Command) -> str:
    """Suggest a similar option, or the setting of this name (`--weight-decay`)."""
    name = option.lstrip("-").replace("-", "_").lower()
    known = {flag.lstrip("-").replace("-", "_"): flag for flag in _options(command)}
    settings = _settings() if "-o" in known.values() else {}
    if name in known:
        return f"did you mean {known[name]}? "
    synonym = _SYNONYMS.get(name, "")
    if synonym in known.values() or (synonym and settings):
        return f"use {synonym}; "
    others = [verb for verb in VERBS if option in _options(_command(verb))]
    if others:
        return f"`patchword {others[0]}` has this option; "
    if same := [text for leaf, text in settings.items() if name == leaf or name in leaf.split("_")]:
        return f"use {' or '.join(same[:3])}; "
    if near := nearest(name, {**settings, **known}, 1, _CUTOFF):
        return f"did you mean {known.get(near[0]) or settings[near[0]]}? "
    return ""


def _settings() -> dict[str, str]:
    """Map the last part of each setting's path to the option that sets it, for training from scratch."""
    from patchword.images.preprocess import Preprocess
    from patchword.model.config import ViTConfig
    from patchword.model.kinds import Rope2d
    from patchword.settings import leaves
    from patchword.training.config import TrainSettings

    usual = TrainSettings(model=ViTConfig(positions=Rope2d()), preprocess=Preprocess.simple(224))
    found: dict[str, str] = {}
    for path in leaves(usual):
        leaf, text = path.rpartition(".")[2], f"-o {path}=VALUE"
        found[leaf] = f"{found[leaf]} or {text}" if leaf in found else text
    return found


def _options(command: click.Command) -> list[str]:
    found: list[Any] = [p for p in command.params if isinstance(p, click.Option)]
    return [name for option in found for name in (*option.opts, *option.secondary_opts)]


if __name__ == "__main__":
    main()
