"""Initial weights of a training run: read once, adapted to the data, recorded in the run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from patchword import settings as tree
from patchword.errors import MissingFact, SettingsError
from patchword.formats.facts import Options
from patchword.formats.report import LoadReport
from patchword.formats.source import Source, read_source
from patchword.hub.fetch import is_detector_release
from patchword.hub.find import find_weights
from patchword.images.preprocess import ValueRange
from patchword.model.config import ViTConfig
from patchword.model.detr.config import DetrConfig
from patchword.model.kinds import ClassPool, FirstPool, MeanPool
from patchword.model.shapes import shapes
from patchword.training.config import TrainSettings
from patchword.training.detector_file import read_detector_file
from patchword.training.detector_start import KnownDetector, split_in_two, take_over
from patchword.training.detr_start import DetrStart, fill_detr, read_trunk, start_of_detr
from patchword.training.overlay import Overlay
from patchword.training.recipes.facts import Choice, DataFacts, Size
from patchword.training.tasks.detectors import TrainedDetr, TrainedVitDet, TrainedYolos
from patchword.training.tasks.make import Begun
from patchword.weights.adapt import Change, Wanted, adapt
from patchword.weights.card import ModelCard

# Fields that training or the data determine, independent of the weights.
FREE = ("image.size", "image.channels", "patch.size", "head.num_classes", "block.drop_path", "block.dropout")

# Facts that files may lack, and the setting of the new model that replaces each.
SIZES = {"image_size": "model.image.size", "patch_size": "model.patch.size"}


@dataclass(frozen=True, kw_only=True)
class Start:
    """Initial weights. name: as the user specified them; report: of reading them. detector: what follows the backbone, of a detector."""

    name: str
    source: Source
    report: LoadReport
    detector: KnownDetector | None = None

    @property
    def value_range(self) -> ValueRange | None:
        """The value range with which the weights read deep images."""
        return self.source.card.preprocess.reading.value_range

    def added_to(self, facts: DataFacts) -> DataFacts:
        """Facts with what a recipe needs to know about the weights."""
        known = None if self.detector is None else self.detector.config
        return replace(facts, weights=self.source.card, detector=known)

    @property
    def for_boxes(self) -> str:
        """What the weights are, if they are for data with boxes alone; else ""."""
        return "" if self.detector is None else "a detector"

    @property
    def trained_on(self) -> str:
        return self.source.card.provenance.trained_on

    def kept_rows(self, classes: Sequence[str]) -> int:
        """How many rows of the head are kept for these classes."""
        card = self.source.card
        return 0 if "head" in card.untrained else len(set(card.classes) & set(classes))

    def facts(self) -> dict[str, str]:
        """Origin of the weights, for the files of the run."""
        where = self.source.card.provenance
        return {
            "name": self.name,
            "source": where.source,
            "sha256": where.source_sha256,
            "licence": where.licence,
        }


# Of a model, or of DETR.
AnyStart = Start | DetrStart


def read_start(
    name: str, options: Options | None = None, *, offline: bool = False, overlay: Overlay | None = None
) -> AnyStart:
    """Read the weights `name`: a run, a file in any supported format, a hub name or a published release.

    overlay: the user's settings. If no file contains a size of the old model, the specified new size is used.
    Raises: CheckpointError.
    """
    released = not Path(name).expanduser().exists() and is_detector_release(name)
    found = find_weights(name, offline=offline, detector=bool(released))
    options, overlay, notes = options or Options(), overlay or Overlay(), []
    if (file := read_detector_file(found, options)) is not None:
        if isinstance(file.card.config, DetrConfig):
            return start_of_detr(name, file)
        source, known = split_in_two(file)
        return Start(name=name, source=source, report=file.report, detector=known)
    if (trunk := read_trunk(name, found, options)) is not None:
        return trunk
    while True:
        try:
            source, report = read_source(found, options)
        except MissingFact as error:
            path = SIZES.get(error.fact, "")
            size = overlay.get(path) if path else None
            if size is None or getattr(options, error.fact) is not None:
                raise
            options = replace(options, **{error.fact: size})
            notes.append(_assumed_size(overlay.source(path), size))
            continue
        return Start(name=name, source=source, report=replace(report, notes=(*report.notes, *notes)))


def _assumed_size(source: str, size: Size) -> str:
    return f"no file specifies the size that the weights were trained for; assuming {size[0]}x{size[1]} ({source})"


def fill(
    model: Begun, start: AnyStart, settings: TrainSettings, classes: tuple[str, ...]
) -> tuple[Change, ...]:
    """Load the weights, adapted to the data, into `model`; missing tensors keep their random initialisation.

    What follows a backbone, and all of DETR, is loaded by `fill_rest`.
    Raises: SettingsError if a setting describes another model than that of the weights.
    """
    if isinstance(start, DetrStart) or isinstance(model, TrainedDetr):
        return ()
    wanted = Wanted(
        image_size=settings.vit.image.size,
        patch_size=settings.vit.patch.size,
        channels=settings.vit.image.channels,
        classes=classes or None,
        seed=settings.run.seed,
    )
    known = {name: tensor.float() for name, tensor in start.source.tensors.items()}
    card, complete = start.source.card, _completed(known, start)
    if not classes:
        card, complete = _without_head(card, complete)
    done = adapt(card, complete, wanted)
    tensors = {name: tensor for name, tensor in done.tensors.items() if name not in start.report.new}
    changes = done.changes
    fresh = pools_anew(start.source.card.config, settings.vit)
    if fresh:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("norm.")}
        width = f"[{settings.vit.dim}]"
        changes = (*changes, Change(part="final norm", before=width, after="none", how="left out"))
        changes = (
            *changes,
            Change(part="norm after pooling", before="none", after=width, how="starts fresh"),
        )
    _refuse_other_model(tensors, start, settings.vit, fresh)
    model.load_state_dict({**model.state_dict(), **tensors})
    return changes


def fill_rest(modules: Iterable[nn.Module], start: AnyStart, classes: tuple[str, ...]) -> str:
    """Of a detector's weights, load what follows the backbone into `modules`, or all of DETR.

    Says which classes were kept, "" for other weights.

    Raises: SettingsError if it does not fit.
    """
    said = ""
    for module in modules:
        if isinstance(start, DetrStart):
            assert isinstance(module, TrainedDetr)
            said = fill_detr(module, start, classes)
        elif start.detector is not None and isinstance(module, TrainedVitDet | TrainedYolos):
            said = take_over(module, start.detector, classes)
    return said


def pools_anew(old: ViTConfig, new: ViTConfig) -> bool:
    """Whether the new model reads the mean of the patches, with a norm of its own, and the weights one token or mean after the final norm.

    As MAE fine-tunes: the encoder is the same, and only what follows its last block is exchanged.
    """
    before, after = old.head, new.head
    simple = isinstance(before.pool, ClassPool | FirstPool | MeanPool) and before.norm == "tokens"
    wanted = replace(before, pool=MeanPool(), norm="pooled", num_classes=after.num_classes)
    return simple and after == wanted


def _without_head(card: ModelCard, tensors: Mapping[str, Tensor]) -> tuple[ModelCard, Mapping[str, Tensor]]:
    """For training without classes."""
    head = replace(card.config.head, num_classes=0, distilled=False)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(("head.", "head_"))}
    return replace(card, config=replace(card.config, head=head), classes=(), temperature=None), kept


def _completed(tensors: Mapping[str, Tensor], start: Start) -> Mapping[str, Tensor]:
    """Add zeros for tensors that the file lacks (--allow-partial), so that they can be resampled with the others."""
    expected = shapes(start.source.card.config)
    return dict(tensors) | {name: Tensor(*expected[name]).zero_() for name in start.report.new}


def _refuse_other_model(tensors: Mapping[str, Tensor], start: Start, model: ViTConfig, fresh: bool) -> None:
    """fresh: the norm after pooling needs no weights."""
    expected = {n: s for n, s in shapes(model).items() if not (fresh and n.startswith("pooled_norm."))}
    lacking = [name for name in expected if name not in tensors and name not in start.report.new]
    wrong = [name for name in tensors if expected.get(name) != tuple(tensors[name].shape)]
    if not lacking and not wrong:
        return
    there = differing(start.source.card.config, model)
    shown = "; ".join(f"model.{path} is {new}, but the weights have {old}" for path, old, new in there[:3])
    raise SettingsError(
        f"the settings do not match the model of {start.name}: {shown or (lacking + wrong)[0]}",
        "remove these settings, or train without --weights",
    )


def differing(old: ViTConfig, new: ViTConfig) -> list[tuple[str, Any, Any]]:
    """(path, value of the weights, value of the settings) where they differ, except for FREE fields."""
    before, after = tree.leaves(old), tree.leaves(new)
    paths = [path for path in {**before, **after} if path not in FREE]
    return [(p, before.get(p), after.get(p)) for p in paths if before.get(p) != after.get(p)]


def doubts(start: AnyStart, settings: TrainSettings) -> list[Choice]:
    """Warnings about settings that differ from those of the weights."""
    if isinstance(start, DetrStart):
        return []  # another shape is refused, and the rest follows from the recipe
    anew = ("head.pool", "head.norm") if pools_anew(start.source.card.config, settings.vit) else ()
    return [
        Choice(what=f"warning: model.{path} is {new}", why=f"the weights were trained with {old}")
        for path, old, new in differing(start.source.card.config, settings.vit)
        if not path.startswith(anew)
    ]
