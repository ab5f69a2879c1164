"""Score a trained run and write its report."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.dataset import Dataset
from patchword.errors import (
    DataError,
)
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.detector import Detector
    from patchword.inference.evaluate import Evaluation, TrainingScore
    from patchword.inference.evaluate_pixels import PixelEvaluation
    from patchword.inference.evaluate_targets import TargetEvaluation
    from patchword.inference.model import Model
    from patchword.training.config import TrainSettings
    from patchword.training.runfolder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training. evaluation: the scores of last.safetensors. skipped: unreadable images."""

    folder: Path
    settings: "TrainSettings"
    evaluation: "Evaluation | TargetEvaluation | PixelEvaluation | BoxEvaluation"
    skipped: tuple[tuple[str, str], ...]

    @property
    def model(self) -> "Model | Detector":
        """The last averaged weights, ready to predict."""
        from patchword.inference.load import load

        if self.settings.task.kind == "detect":
            from patchword.inference.detector import load_detector

            return load_detector(self.folder)

        return load(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.evaluation.headline})"


def finish(
    folder: Path, settings: "TrainSettings", dataset: Dataset, skipped: tuple[tuple[str, str], ...]
) -> Run:
    from patchword.inference.box_scores import BoxEvaluation
    from patchword.inference.evaluate import Evaluation, EvaluationRequest
    from patchword.inference.evaluate_targets import TargetEvaluation, score
    from patchword.inference.load import load
    from patchword.reports.html import write_report
    from patchword.runs.finish_detection import detection_evaluation, with_pictures
    from patchword.runs.finish_pretraining import pixel_evaluation
    from patchword.training.runfolder import EVALUATION, LAST, REPORT, RunFolder

    evaluation: Evaluation | TargetEvaluation | PixelEvaluation | BoxEvaluation
    if settings.task.kind == "mae":
        evaluation = pixel_evaluation(folder, settings, dataset)
    elif settings.task.kind == "detect":
        evaluation = detection_evaluation(folder, settings, dataset)
    else:
        model = load(folder / LAST)
        # The probe of `--tune head` has computed the features of these images.
        known = (
            settings.tune.kind == "head"
            and settings.task.kind == "classify"
            and model.vit.head_distillation is None
        )
        request = EvaluationRequest(from_features=known)
        evaluation = replace(score(model, dataset, request), data=dataset.path)
    if isinstance(evaluation, Evaluation):
        run_folder = RunFolder(folder)
        training = _score_of_probe(settings, dataset, run_folder) or _training_score(
            model, dataset, run_folder
        )
        evaluation = replace(evaluation, training=training)
        _keep_temperature(folder / LAST, evaluation)
    elif isinstance(evaluation, TargetEvaluation):
        _keep_thresholds(folder / LAST, evaluation)
    plain = with_pictures(evaluation) if isinstance(evaluation, BoxEvaluation) else evaluation.to_dict()
    text = to_json(plain, indent=1)
    # Remove the report of the unfinished run first: if killed here, the run can still be resumed.
    (folder / REPORT).unlink(missing_ok=True)
    RunFolder(folder).write_text(EVALUATION, text + "\n")
    write_report(folder)
    return Run(folder=folder, settings=settings, evaluation=evaluation, skipped=skipped)


def _score_of_probe(
    settings: "TrainSettings", dataset: Dataset, folder: "RunFolder"
) -> "TrainingScore | None":
    """The training score of a head that is a probe: it was computed with its features."""
    from patchword.inference.evaluate import TrainingScore
    from patchword.metrics import wilson_interval
    from patchword.training.floor import FLOOR
    from patchword.training.train import read_run
    from patchword.training.tune import Head

    _, facts = read_run(folder)
    if not isinstance(settings.tune, Head) or FLOOR not in facts:
        return None
    scored, top1 = int(facts[FLOOR]["training_images"]), float(facts[FLOOR]["training_top1"])
    return TrainingScore(
        scored=scored,
        of=len(dataset.training),
        top1=top1,
        top1_interval=wilson_interval(round(top1 * scored), scored),
        loss=float(facts[FLOOR]["training_loss"]),
    )


def _training_score(model: "Model", dataset: Dataset, folder: "RunFolder") -> "TrainingScore | None":
    """The score on clean training images, or None if their files are no longer readable: the run has its weights."""
    from patchword.inference.evaluate import training_score

    try:
        return training_score(model, dataset)
    except DataError as error:
        folder.log(f"no training score: {error.message}")
        return None


def _keep_temperature(path: Path, evaluation: "Evaluation") -> None:
    """Write the temperature fitted on the held-out images into the card of the weights; no prediction changes."""
    from patchword.weights.native import read_model, write_model

    if evaluation.calibration is None or evaluation.calibration.temperature is None:
        return
    card, tensors = read_model(path)
    write_model(path, tensors, replace(card, temperature=evaluation.calibration.temperature))


def _keep_thresholds(path: Path, evaluation: "TargetEvaluation") -> None:
    """Write the best threshold of each class into the card of the weights, 0.5 for classes with too few images."""
    from patchword.inference.target_scores import DEFAULT_THRESHOLD
    from patchword.weights.native import read_model, write_model

    found = [output.get("threshold") for output in evaluation.outputs]
    if all(threshold is None for threshold in found):
        return
    card, tensors = read_model(path)
    thresholds = tuple(DEFAULT_THRESHOLD if t is None else float(t) for t in found)
    write_model(path, tensors, replace(card, thresholds=thresholds))
