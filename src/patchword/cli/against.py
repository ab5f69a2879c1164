"""`predict --against`: compare predictions with a table of labels and print the score."""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from patchword.cli.class_table import print_classes
from patchword.cli.console import line, make_console, percent, say
from patchword.cli.options import given_reading, kept_option, kept_values
from patchword.data.request import OpenRequest
from patchword.errors import DataError, SettingsError, plural

if TYPE_CHECKING:
    from patchword.cli.writers import Several
    from patchword.inference.prediction import Prediction
    from patchword.inference.score import Score
    from patchword.inference.score_targets import TargetScore
    from patchword.inference.sources import Reading

F = TypeVar("F", bound=Callable[..., Any])
_KEPT = "patchword.against"
_NO_COLUMNS = OpenRequest()


_against = kept_option(
    _KEPT,
    "--against",
    metavar="TABLE",
    help="Score the predictions: a table of image names and true classes.",
)
_ignore_unknown = kept_option(
    _KEPT,
    "--ignore-unknown-classes",
    is_flag=True,
    help="With --against: skip images of classes unknown to MODEL.",
)


_separator = kept_option(
    _KEPT,
    "--label-separator",
    metavar="TEXT",
    help="With --against: text between the classes of an image, e.g. ';'.",
)
_targets = kept_option(
    _KEPT,
    "--target-column",
    metavar="NAME[,NAME]",
    help="With --against: columns of numbers. [default: those named as MODEL's]",
)


def against_options(command: F) -> F:
    """Add --against and what belongs to it; `given_against` returns them."""
    return _against(_separator(_targets(_ignore_unknown(command))))


def given_against(files: tuple[str, ...], *, as_json: bool, as_rows: bool, to_file: bool) -> "Against":
    """The options of the running command. as_rows: rows for other programs. to_file: the rows are not printed.

    Raises: DataError, SettingsError for options that cannot work.
    """
    reading = given_reading()
    kept = kept_values(_KEPT)
    path, ignore_unknown = kept.pop("against"), kept["ignore_unknown_classes"]
    if path is None:
        for name, value in kept.items():
            if value:
                option = f"--{name.replace('_', '-')}"
                raise SettingsError(f"{option} only applies together with --against", "remove the option")
        return Against(None, reading)
    opening = reading.opening
    request = OpenRequest(
        image_column=opening.image_column,
        label_column=opening.label_column,
        label_separator=kept["label_separator"],
        target_column=kept["target_column"],
    )
    return Against(
        path,
        reading,
        files,
        request=request,
        ignore_unknown=ignore_unknown,
        as_json=as_json,
        stderr=as_rows and not to_file,
        to_file=to_file,
    )


class Against:
    """Compares predictions with a table, if there is one; without it, does nothing.

    reading: for the images, without the columns that name those of the table of labels. json_score: whether
    the score alone is printed as JSON, because the predictions go to a file.
    """

    def __init__(
        self,
        path: str | None,
        reading: "Reading",
        files: tuple[str, ...] = (),
        *,
        request: OpenRequest = _NO_COLUMNS,
        ignore_unknown: bool = False,
        as_json: bool = False,
        stderr: bool = False,
        to_file: bool = False,
    ) -> None:
        self.asked, self.reading, self.ignore_unknown = path is not None, reading, ignore_unknown
        self.as_json, self.stderr, self.to_file = as_json, stderr, to_file
        self.json_score = self.asked and as_json and to_file
        self._scorer: Any = None
        self._overlap: Any = None
        self.path, self.request = path, request
        if path is None:
            return
        from patchword.data.sources.table import read_columns
        from patchword.inference.sources import without_unused

        read_columns(path)  # its errors come before the model is loaded
        self.reading = without_unused(files, reading)

    def match(self, sources: Any, model: Any, several: "Several | None") -> Any:
        """The sources, each with its row of the table. Raises: DataError if none has one, or a class is unknown."""
        if self.path is None:
            return sources
        from patchword.inference.inputs import named
        from patchword.inference.score import make_scorer, trained_among
        from patchword.inference.target_scores import DEFAULT_THRESHOLD

        if not hasattr(sources, "__len__"):
            sources = list(sources)  # a row may name any of them, so all names are needed first
        names = [named(source).name for source in sources]
        self._scorer = make_scorer(
            self.path,
            self.request,
            names,
            model.card.task,
            model.classes,
            ignore_unknown=self.ignore_unknown,
            thresholds=DEFAULT_THRESHOLD if several is None else several.thresholds,
        )
        labelled = [s for s, label in zip(sources, self._scorer.matched.labels, strict=True) if label]
        self._overlap = trained_among(model, labelled, self.reading.opening.max_pixels)
        if self.as_json and not self.to_file:
            sys.stdout.write('{"predictions":\n')
        return sources

    def add(self, prediction: "Prediction") -> "Prediction":
        return prediction if self._scorer is None else self._scorer.add(prediction)

    def report(self) -> None:
        """Print the score: to standard output, or to standard error next to rows for other programs."""
        if self._scorer is None:
            return
        from patchword.inference.score_targets import TargetScore
        from patchword.settings import to_json

        try:
            score = replace(self._scorer.score(), trained_on=self._overlap)
        except DataError:
            if self.as_json and not self.to_file:
                click.echo("}")  # the predictions stay valid JSON
            raise
        if self.as_json:
            before = '{"score":\n' if self.to_file else ',"score":\n'
            click.echo(before + to_json(score.to_dict(), indent=1) + "}")
        elif isinstance(score, TargetScore):
            self._print_targets(score)
        else:
            self._print(score)
        for note in score.notes:
            say(f"note: {note}")
        if self._overlap is not None and self._overlap.images:
            say(f"warning: {self._overlap.text}")
        if score.notice:
            say(f"warning: {score.notice}")

    def _print_targets(self, score: "TargetScore") -> None:
        console = make_console(stderr=self.stderr)
        if not self.to_file:
            console.print()
        console.print(line(score.headline, "bold"))
        for text in score.lines:
            console.print(line(text))
        of = "" if score.scored == score.images else f" of {score.images}"
        images = plural(score.scored, "image") if not of else f"{score.scored}{of} images"
        console.print(line(f"scored {images} against {score.labels}"))

    def _print(self, score: "Score") -> None:
        console = make_console(stderr=self.stderr)
        if not self.to_file:
            console.print()
        of = "" if score.scored == score.images else f" of {score.images}"
        images = plural(score.scored, "image") if not of else f"{score.scored}{of} images"
        low, high = map(percent, score.top1_interval)
        top1 = line(f"top-1  {percent(score.top1)}", "bold")
        top1.append_text(line(f"   95 % interval {low} to {high}", "not bold"))
        console.print(top1)
        if score.top5 is not None:
            console.print(f"top-5  {percent(score.top5)}")
        console.print(line(f"scored {images} against {score.labels}"))
        console.print()
        print_classes(console, score.class_names, score.classes, score.confusion)
