"""Weights that a training begins from: read once, made to fit the data, remembered in the run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from patchword import settings as tree
from patchword.checkpoints.adapt import Change, Wanted, adapt
from patchword.checkpoints.facts import Options
from patchword.checkpoints.find import find_weights
from patchword.checkpoints.report import LoadReport
from patchword.checkpoints.source import Source, read_source
from patchword.errors import MissingFact, SettingsError
from patchword.images.preprocess import ValueRange
from patchword.model.config import ViTConfig
from patchword.model.shapes import shapes
from patchword.model.vit import ViT
from patchword.training.config import TrainSettings
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, Size

# Fields that training or the data decide, whatever the weights were made with.
FREE = ("image.size", "image.channels", "patch.size", "head.num_classes", "block.drop_path", "block.dropout")

# What no file may say of the weights, and the setting of the new model that stands in for it.
SIZES = {"image_size": "model.image.size", "patch_size": "model.patch.size"}


@dataclass(frozen=True, kw_only=True)
class Start:
    """name: as the user calls them. report: what reading them did."""

    name: str
    source: Source
    report: LoadReport

    @property
    def value_range(self) -> ValueRange | None:
        """The range that the weights read deep images with."""
        return self.source.card.preprocess.reading.value_range

    def facts(self) -> dict[str, str]:
        """What every file of the run says of where it began."""
        where = self.source.card.provenance
        return {
            "name": self.name,
            "source": where.source,
            "sha256": where.source_sha256,
            "licence": where.licence,
        }


def read_start(
    name: str, options: Options | None = None, *, offline: bool = False, overlay: Overlay | None = None
) -> Start:
    """What `name` means: a run, a file in any layout, a name of the hub or of a release.

    overlay: what the new model shall have. A size that no file says of the old one is taken to be the same.
    Raises: CheckpointError.
    """
    found = find_weights(name, offline=offline)
    said, overlay, notes = options or Options(), overlay or Overlay(), []
    while True:
        try:
            source, report = read_source(found, said)
        except MissingFact as error:
            path = SIZES.get(error.fact, "")
            size = overlay.get(path) if path else None
            if size is None or getattr(said, error.fact) is not None:
                raise
            said = replace(said, **{error.fact: size})
            notes.append(_taken(overlay.source(path), size))
            continue
        return Start(name=name, source=source, report=replace(report, notes=(*report.notes, *notes)))


def _taken(source: str, size: Size) -> str:
    return f"no file says what the weights were made for, taken to be {size[0]}x{size[1]} ({source})"


def fill(model: ViT, start: Start, settings: TrainSettings, classes: tuple[str, ...]) -> tuple[Change, ...]:
    """Put the weights, adapted to the data, into `model`; what no file held stays as it was drawn.

    Raises: SettingsError where a setting asks for another model than the weights are of.
    """
    wanted = Wanted(
        image_size=settings.model.image.size,
        patch_size=settings.model.patch.size,
        channels=settings.model.image.channels,
        classes=classes,
        seed=settings.run.seed,
    )
    known = {name: tensor.float() for name, tensor in start.source.tensors.items()}
    done = adapt(start.source.card, _completed(known, start), wanted)
    tensors = {name: tensor for name, tensor in done.tensors.items() if name not in start.report.new}
    _refuse_other_model(tensors, start, settings.model)
    model.load_state_dict({**model.state_dict(), **tensors})
    return done.changes


def _completed(tensors: dict[str, Tensor], start: Start) -> Mapping[str, Tensor]:
    """With --allow-partial the file lacks tensors that are to be resampled with the rest; any values do."""
    expected = shapes(start.source.card.config)
    return tensors | {name: Tensor(*expected[name]).zero_() for name in start.report.new}


def _refuse_other_model(tensors: Mapping[str, Tensor], start: Start, model: ViTConfig) -> None:
    expected = shapes(model)
    lacking = [name for name in expected if name not in tensors and name not in start.report.new]
    wrong = [name for name in tensors if expected.get(name) != tuple(tensors[name].shape)]
    if not lacking and not wrong:
        return
    there = differing(start.source.card.config, model)
    said = "; ".join(f"model.{path} is {new}, of the weights {old}" for path, old, new in there[:3])
    raise SettingsError(
        f"the settings ask for another model than {start.name} is: {said or (lacking + wrong)[0]}",
        "leave these settings out, or train it without --weights",
    )


def differing(old: ViTConfig, new: ViTConfig) -> list[tuple[str, Any, Any]]:
    """(path, of the weights, of the settings) where they part, but for what the data decide."""
    before, after = tree.leaves(old), tree.leaves(new)
    paths = [path for path in {**before, **after} if path not in FREE]
    return [(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)]


def doubts(start: Start, settings: TrainSettings) -> list[Choice]:
    """Settings under which the weights have never worked, in words."""
    return [
        Choice(what=f"warning: model.{path} is {new}", why=f"the weights were made with {old}")
        for path, old, new in differing(start.source.card.config, settings.model)
    ]
