"""Read a detector's file in any of its layouts: card, plan and tensors. Strict, mapped, with a report."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.containers.stored import Stored, open_stored
from patchword.errors import CheckpointError, SettingsError, UnknownLayout, plural
from patchword.formats.checkpoint import Checkpoint, unwrap
from patchword.formats.detection.build import on_meta, parameters_of, shapes_of
from patchword.formats.detection.detr import OriginalDETR
from patchword.formats.detection.layout import (
    DetectorDescription,
    DetectorLayout,
    DetectorOptions,
    nominal,
)
from patchword.formats.detection.transformers_detr import TransformersDETR
from patchword.formats.detection.transformers_yolos import TransformersYOLOS
from patchword.formats.detection.yolos import OriginalYOLOS
from patchword.formats.facts import OPTION, Facts, flag_of
from patchword.formats.layout import Rule
from patchword.formats.own import cut
from patchword.formats.own_options import check_names
from patchword.formats.plan import Dropped, Plan, plan_of
from patchword.formats.read import read_rule, release_for
from patchword.formats.report import LoadReport
from patchword.formats.rows import rules_of
from patchword.hub.published import Release, class_names
from patchword.model.base import Shapes
from patchword.model.detr.config import DetrConfig
from patchword.model.vitdet.config import VitDetConfig
from patchword.weights.card import Provenance
from patchword.weights.detector_card import DetectionClass, DetectorCard, DetectorConfig

if TYPE_CHECKING:
    from torch import Tensor

LAYOUTS: tuple[DetectorLayout, ...] = (
    OriginalDETR(),
    OriginalYOLOS(),
    TransformersDETR(),
    TransformersYOLOS(),
)
# The detector inside a model with a segmentation head, and that head.
_WITH_MASKS = "detr."
_MASKS = re.compile(r"(mask_head|bbox_attention)\..*")


@dataclass(frozen=True, kw_only=True)
class OpenedDetector:
    """A matched file, before any tensor is read."""

    checkpoint: Checkpoint
    layout: DetectorLayout
    spelling: Mapping[str, Any]
    plan: Plan
    card: DetectorCard
    report: LoadReport


def open_detector(path: Path, options: DetectorOptions | None = None, source: str = "") -> OpenedDetector:
    """Recognise, describe and match a detector's file, without reading a tensor.

    source: a permanent name of a downloaded file. Raises: CheckpointError for anything that is wrong with it.
    """
    return resolve_detector(open_stored(path), options or DetectorOptions(), source)


def resolve_detector(stored: Stored, options: DetectorOptions, source: str = "") -> OpenedDetector:
    """As `open_detector`, for a file that is already listed."""
    checkpoint = without_masks(cut(unwrap(stored), options.below, options.drop))
    layout, evidence = recognised_detector(checkpoint)
    release = release_for(stored, checkpoint, source)
    facts = Facts(checkpoint.name, options, release)
    try:
        description = layout.describe(checkpoint, facts)
    except SettingsError as error:
        raise CheckpointError(f"{checkpoint.name}: {error.message}", error.fix) from error
    _check_used(facts, options, description.config)
    model = on_meta(description.config)
    plan = match_detector(checkpoint, layout, description, shapes_of(model))
    card = DetectorCard(
        config=description.config,
        preprocess=nominal(description.preprocess),
        classes=_classes(options, description, release, checkpoint.name),
        provenance=Provenance(
            source=source or stored.path.name,
            licence="" if release is None else release.licence.weights or "",
        ),
    )
    unused = [left for left in checkpoint.left if left.tensors]
    report = LoadReport(
        path=checkpoint.path,
        layout=layout.title,
        evidence=evidence,
        facts=tuple(facts.found),
        tensors=plan.matched,
        parameters=parameters_of(model),
        dropped=(*(Dropped(names=n, reason=r) for r, n in checkpoint.removed), *plan.dropped),
        notes=(
            *(f"left in the file: {left.what} ({plural(left.tensors, 'tensor')})" for left in unused),
            *checkpoint.notes,
            *facts.inferred(),
            *description.notes,
        ),
    )
    return OpenedDetector(
        checkpoint=checkpoint,
        layout=layout,
        spelling=description.spelling,
        plan=plan,
        card=card,
        report=report,
    )


def recognised_detector(checkpoint: Checkpoint) -> tuple[DetectorLayout, str]:
    """The layout and the evidence for it. Raises: UnknownLayout with the tensors found."""
    for layout in LAYOUTS:
        if (evidence := layout.recognise(checkpoint)) is not None:
            return layout, evidence
    shown = ", ".join(f"{name} {list(checkpoint.shape(name))}" for name in list(checkpoint.tensors)[:3])
    titles = ", ".join(layout.title for layout in LAYOUTS)
    raise UnknownLayout(
        f"{checkpoint.name}: no supported detector has its {plural(len(checkpoint.tensors), 'tensor')} ({shown}, …)",
        f"give a file of {titles}; load(PATH) reads a model without boxes",
    )


def match_detector(
    checkpoint: Checkpoint, layout: DetectorLayout, description: DetectorDescription, there: Shapes
) -> Plan:
    """Match every tensor of the file with the model's. Raises: CheckpointError."""
    rules = detector_rules(layout, description.config, description.spelling, there)
    return plan_of(checkpoint, layout.title, (*rules, *layout.ignored), there, can_be_partial=False)


def detector_rules(
    layout: DetectorLayout, config: DetectorConfig, spelling: Mapping[str, Any], there: Shapes
) -> list[Rule]:
    """The rules for a model with the tensors `there`."""
    depth = (
        max(config.encoder_depth, config.decoder_depth)
        if isinstance(config, DetrConfig)
        else (config.vit if isinstance(config, VitDetConfig) else config.backbone).depth
    )
    return list(rules_of(layout.rows(config, spelling), there, depth))


def read_detector_tensors(opened: OpenedDetector) -> dict[str, "Tensor"]:
    """The model's tensors, in the file's dtype; mapped if stored as the model needs them."""
    found: dict[str, Tensor] = {}
    for rule in opened.plan.rules:
        tensors = read_rule(rule, opened.checkpoint, opened.plan.shapes)
        found |= zip(rule.ours, tensors, strict=True)
    return found


def without_masks(checkpoint: Checkpoint) -> Checkpoint:
    """The detector below `detr.`, if the file also has a segmentation head."""
    heads = tuple(name for name in checkpoint.tensors if _MASKS.fullmatch(name))
    inside = {
        name.removeprefix(_WITH_MASKS): entry
        for name, entry in checkpoint.tensors.items()
        if name.startswith(_WITH_MASKS)
    }
    if not heads or len(heads) + len(inside) != len(checkpoint.tensors):
        return checkpoint
    reason = "the segmentation head, since only boxes are predicted"
    return replace(checkpoint, tensors=inside, removed=(*checkpoint.removed, (reason, heads)))


def _check_used(facts: Facts, options: DetectorOptions, config: DetectorConfig) -> None:
    """Raises: CheckpointError for an option that does not apply to this file."""
    used = {fact.name for fact in facts.found if fact.source == OPTION}
    # Of YOLOS' positions, where `Facts.grid` checks it. DETR has no tables that depend on the size of images.
    used = used - {"image_size"} if isinstance(config, DetrConfig) else used | {"image_size"}
    of_others = ("patch_size", "pool", "head", "allow_partial", "decoder_num_heads", "norm_pix_loss")
    ours = ("num_heads", "image_size", "act", "eps", "mean", "std", "dilation", "mid_image_size")
    for name in (*ours, *of_others):
        value = getattr(options, name)
        given = value if name == "allow_partial" else value is not None
        if given and name not in used:
            raise CheckpointError(
                f"{facts.name}: {flag_of(name)} does not apply to a file of this layout", "remove it"
            )


def _classes(
    options: DetectorOptions, description: DetectorDescription, release: Release | None, name: str
) -> tuple[DetectionClass, ...]:
    """Published files number their outputs as the data numbers its categories, gaps included."""
    count, names = description.config.num_classes, description.names
    if options.classes is not None:
        check_names(options.classes, count, name)
        names = options.classes
    elif not names and release is not None and (known := release.classes) is not None:
        names = class_names(known.names) if known.names is not None and known.count == count else ()
    return tuple(DetectionClass(index, names[index] if names else "") for index in range(count))
