"""The `patchword` command: finds the verb, runs it, turns errors into two lines and an exit code."""

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
    """A group whose commands are imported when they are called, never before."""

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

        click.echo(f"patchword {own_package().found or '(not installed: run from its source)'}")
        ctx.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Print the version."
)
def patchword() -> None:
    """The plain Vision Transformer, from images to answers.

    \b
    patchword train flowers/             a classifier from class folders
    patchword predict runs/flowers *.jpg names for new images
    """


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the code of what happened (errors.py, docs)."""
    guard_streams()
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.

    An exception that is no PatchwordError is a bug and leaves through the top with its
    traceback; Python's own exit code for that is 1.
    """
    try:
        answer = patchword.main(args=args, prog_name="patchword", standalone_mode=False)
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except PatchwordError as error:
        return _say(error.message, error.fix, error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE_ERROR
    except click.UsageError as error:
        return _say(*_usage_message(error), USAGE_ERROR)
    except (KeyboardInterrupt, click.Abort):
        return _say("interrupted", "", INTERRUPTED)
    except ReaderLeft:
        return 0
    except Exception as error:
        if is_out_of_memory(error):
            return _say(
                f"not enough memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "use a smaller --batch-size, --image-size or model, or free memory",
                USAGE_ERROR,
            )
        if _torch_cannot_load(error):
            return _say(
                f"torch cannot be loaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
                "`patchword doctor` says what is installed, and the command that mends it",
                USAGE_ERROR,
            )
        click.echo(
            "error: this is a bug in patchword; the traceback below is for its authors\n"
            "  fix: report it with the command that you typed and the output of `patchword doctor`",
            err=True,
        )
        raise


def _torch_cannot_load(error: Exception) -> bool:
    """Whether `import torch` itself failed: it is missing, or what it needs of the system is. Then no module is left."""
    if not isinstance(error, ImportError | OSError) or "torch" in sys.modules:
        return False
    frames = error.__traceback__
    while frames is not None:
        module = frames.tb_frame.f_globals.get("__name__", "")
        if module.partition(".")[0] == "torch":
            return True
        frames = frames.tb_next
    return isinstance(error, ModuleNotFoundError) and error.name == "torch"


def _say(message: str, fix: str, exit_code: int) -> int:
    say(f"error: {message}")
    if fix:
        say(f"  fix: {fix}")
    return exit_code


def _usage_message(error: click.UsageError) -> tuple[str, str]:
    """What click found, with the nearest option where one was mistyped."""
    context = error.ctx
    command = context.command_path if context else "patchword"
    if isinstance(error, click.NoSuchOption):
        advice = _advice(error.option_name, context.command) if context else ""
        return f"{command} has no option {error.option_name}", f"{advice}`{command} --help` lists them"
    return error.format_message().rstrip("."), f"`{command} --help` shows how to call it"


# What other programs call an option or a setting of ours that has no name like theirs.
_ELSEWHERE = {
    "learning_rate": "--lr",
    "wd": "-o optim.weight_decay=VALUE",
    "momentum": "-o optim.beta1=VALUE",
    "optimizer": "-o optim.method=VALUE",
    "optimiser": "-o optim.method=VALUE",
    "ema": "-o average.decay=VALUE",
    "pretrained": "--weights",
    "gpu": "--device",
}
_NEAR = 0.7


def _advice(option: str, command: click.Command) -> str:
    """What the user may have meant: an option like this one, or a setting of this name (`--weight-decay`)."""
    name = option.lstrip("-").replace("-", "_").lower()
    known = {flag.lstrip("-").replace("-", "_"): flag for flag in _options(command)}
    settings = _settings() if "-o" in known.values() else {}
    if name in known:
        return f"did you mean {known[name]}? "
    elsewhere = _ELSEWHERE.get(name, "")
    if elsewhere in known.values() or (elsewhere and settings):
        return f"give {elsewhere}; "
    if same := [text for leaf, text in settings.items() if name == leaf or name in leaf.split("_")]:
        return f"give {' or '.join(same[:3])}; "
    if near := nearest(name, {**settings, **known}, 1, _NEAR):
        return f"did you mean {known.get(near[0]) or settings[near[0]]}? "
    others = [verb for verb in VERBS if option in _options(_command(verb))]
    return f"`patchword {others[0]}` has it; " if others else ""


def _settings() -> dict[str, str]:
    """The last part of each setting's path → how to set it, for a model that is trained from scratch."""
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
