"""The teacher of a distillation, found and checked before a run. This module does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patchword.errors import CheckpointError, MissingFact, SettingsError, near_text, plural
from patchword.formats.facts import Options, flag_of
from patchword.formats.source import Source, read_source
from patchword.hub.find import find_weights
from patchword.images.preprocess import ValueRange
from patchword.training.choose import Chosen
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice
from patchword.training.tasks.settings import ClassifySettings
from patchword.weights.card import ModelCard, broken_notes

# Keys in data.json: the teacher of the run, and in it the images that the teacher was trained on.
TAUGHT_BY, TRAINED_ON = "teacher", "trained_on"
TEACHER, SHA256 = "task.distill.teacher", "task.distill.sha256"


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """A teacher that knows the classes. name: as the user specified it; rows: of its head, in the order of the classes."""

    name: str
    source: Source
    rows: tuple[int, ...]

    @property
    def card(self) -> ModelCard:
        return self.source.card

    @property
    def sha256(self) -> str:
        return self.card.provenance.source_sha256

    def facts(self) -> dict[str, str]:
        """Where the teacher comes from, for data.json."""
        where = self.card.provenance
        return {
            "name": self.name,
            "source": where.source,
            "sha256": self.sha256,
            "licence": where.licence,
            TRAINED_ON: where.trained_on,
        }


def read_teacher(name: str, classes: Sequence[str], *, offline: bool = False) -> Teaching:
    """Read the weights `name`, as `patchword.load` accepts them, and find each of `classes` in its head by name.

    Raises: SettingsError if it does not classify or lacks classes; CheckpointError if it cannot be read.
    """
    try:
        source, report = read_source(find_weights(name, offline=offline), Options())
    except MissingFact as error:
        flag = f" {flag_of(error.fact)} VALUE" if error.fact else ""
        raise CheckpointError(
            f"the teacher {name}: {error.message}",
            f"convert it first: `patchword convert {name} --to patchword{flag} --out teacher.safetensors`",
        ) from error
    if report.new:
        raise SettingsError(
            f"the teacher {name} lacks {plural(len(report.new), 'tensor')}, such as {report.new[0]}",
            "give a complete file to --teacher",
        )
    return Teaching(name=name, source=source, rows=_rows(name, source.card, classes))


def asked_teacher(overlay: Overlay, classes: Sequence[str], *, offline: bool) -> Teaching | None:
    """The teacher of the user's settings. Raises: as `read_teacher`; SettingsError for settings that only a teacher has."""
    name = overlay.get(TEACHER)
    if name:
        return read_teacher(name, classes, offline=offline)
    if name == "" and not overlay.has_file():
        raise SettingsError(
            "the name of the teacher is empty", "give --teacher NAME, or remove it to learn from labels alone"
        )
    part = TEACHER.removesuffix("teacher")
    given = [path for path in overlay.entries if path.startswith(part) and overlay.is_option(path)]
    if given := [path for path in given if path != TEACHER]:
        raise SettingsError(
            f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect without a teacher",
            f"add --teacher, or remove {', '.join(given)}",
        )
    return None


def _rows(name: str, card: ModelCard, classes: Sequence[str]) -> tuple[int, ...]:
    if not card.config.head.num_classes or card.untrained:
        what = "an untrained head" if card.config.head.num_classes else "no head"
        raise SettingsError(
            f"the teacher {name} has {what}, so it cannot teach classes",
            "give a trained classifier to --teacher",
        )
    if not card.classes:
        raise SettingsError(
            f"the teacher {name} has {card.config.head.num_classes} classes without names, "
            "so they cannot be matched to those of the data",
            f"name them: `patchword convert {name} --to patchword --class-names FILE --out teacher.safetensors`",
        )
    known = {known: row for row, known in enumerate(card.classes)}
    missing = [label for label in classes if label not in known]
    if missing:
        shown = ", ".join(f"{label!r}{near_text(label, known)}" for label in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise SettingsError(
            f"the teacher {name} knows {len(classes) - len(missing)} of the {plural(len(classes), 'class', 'classes')} "
            f"of the data; missing: {shown}{more}",
            "train the teacher on these classes, or name the classes of the data as the teacher does",
        )
    return tuple(known[label] for label in classes)


def with_teacher(chosen: Chosen, teaching: Teaching) -> Chosen:
    """The settings with the teacher's hash, and how it teaches. Raises: SettingsError if it cannot teach this model."""
    settings = chosen.settings
    task, card = settings.task, teaching.card
    if not isinstance(task, ClassifySettings):
        raise SettingsError(
            "--teacher needs data with one class for each image", "remove --teacher, or give such data"
        )
    refuse_other_images(teaching, settings)
    if task.distill.sha256 not in ("", teaching.sha256):
        raise SettingsError(
            f"the teacher {teaching.name} is not the one of the settings file: its weights have another sha256",
            f"give that teacher with --teacher, or accept this one with -o {SHA256}={teaching.sha256}",
        )
    distill = replace(task.distill, sha256=teaching.sha256)
    soft = f"soft, temperature {distill.temperature:g}" if distill.method == "soft" else "hard"
    where = "through the distillation token"
    if not settings.vit.head.distilled:
        where = "in the only head, because the model has no distilled head"
    height, width = card.preprocess.image_size
    choices = [
        Choice(what=f"taught by {teaching.name}", why=f"{soft}, weight {distill.alpha:g}, {where}"),
        Choice(what=f"the teacher sees {width}x{height} pixels", why="its own size"),
    ]
    if len(card.classes) != len(teaching.rows):
        choices.append(
            Choice(
                what=f"{len(teaching.rows)} of the teacher's {len(card.classes)} classes",
                why="those of the data",
            )
        )
    choices += [Choice(what="warning: the teacher", why=note) for note in broken_notes(card.provenance)]
    return replace(
        chosen,
        settings=replace(settings, task=replace(task, distill=distill)),
        sources={**chosen.sources, SHA256: "read from the teacher"},
        choices=(*chosen.choices, *choices),
    )


def refuse_other_images(teaching: Teaching, settings: TrainSettings) -> None:
    """Raises: SettingsError if the teacher reads other channels or another value range than the model."""
    theirs, ours = teaching.card.preprocess, settings.preprocess
    if theirs.in_channels != ours.in_channels:
        raise SettingsError(
            f"the teacher {teaching.name} takes {plural(theirs.in_channels, 'channel')}, "
            f"but the model {ours.in_channels}",
            f"give a teacher of {plural(ours.in_channels, 'channel')} to --teacher, or change the teacher with "
            f"`patchword adapt {teaching.name} --to-channels {ours.in_channels} --out teacher.safetensors`",
        )
    if theirs.reading.value_range != ours.reading.value_range:
        high = theirs.reading.value_range
        fix = f"use --value-range {high[0]:g},{high[1]:g}" if high else "remove --value-range"
        raise SettingsError(
            f"the teacher {teaching.name} reads {_range(high)}, but the model {_range(ours.reading.value_range)}",
            fix,
        )


def _range(value_range: ValueRange | None) -> str:
    return (
        "values up to that of the file type"
        if value_range is None
        else "values of {:g} to {:g}".format(*value_range)
    )
