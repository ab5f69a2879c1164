"""What `import patchword as pw` offers in a line: composes the rooms, decides nothing itself."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.checkpoints.facts import Options, part_of, patterns
from patchword.data.check import CheckReport, check_data, natural_channels
from patchword.data.dataset import Dataset
from patchword.data.open import open_data
from patchword.data.request import OpenRequest
from patchword.errors import DataError, Interrupted, OutputError, PatchwordError, SettingsError
from patchword.settings import from_plain, to_json

if TYPE_CHECKING:
    from patchword.checkpoints.adapt import Adapted
    from patchword.inference.convert import Conversion
    from patchword.inference.evaluate import Evaluation
    from patchword.inference.inspect import Inspected
    from patchword.inference.model import Model
    from patchword.model.config import Activation
    from patchword.training.choose import Chosen, Wishes
    from patchword.training.config import TrainSettings
    from patchword.training.progress import Progress
    from patchword.training.recipes.facts import DataFacts
    from patchword.training.weights import Start


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished training. evaluation: of last.safetensors. skipped: images that could not be read."""

    folder: Path
    settings: "TrainSettings"
    evaluation: "Evaluation"
    skipped: tuple[tuple[str, str], ...]

    @property
    def model(self) -> "Model":
        """The last averaged weights, ready to predict."""
        return load(self.folder)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A checked data set, how it was opened, the weights to begin from, and the settings chosen, ready to train."""

    dataset: Dataset
    report: CheckReport
    chosen: "Chosen"
    opening: OpenRequest
    out: Path
    start: "Start | None" = None


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """data: what `open_data` takes. out: the run folder; None is runs/ and the data's name.

    options, offline: how the weights of `run.weights` are read, where there are any.
    """

    data: str
    wishes: "Wishes"
    out: str | None = None
    opening: OpenRequest = field(default_factory=OpenRequest)
    options: Options = field(default_factory=Options)
    offline: bool = False


def load(
    path: str | Path,
    *,
    device: str | None = None,
    offline: bool = False,
    num_heads: int | None = None,
    image_size: int | Sequence[int] | None = None,
    patch_size: int | Sequence[int] | None = None,
    pool: Literal["class", "first", "mean"] | None = None,
    act: "Activation | None" = None,
    eps: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    head: str | Path | None = None,
    classes: Sequence[str] | None = None,
    allow_partial: bool = False,
    below: str | None = None,
    drop: Sequence[str] = (),
) -> "Model":
    """The model in a run folder, a weights file or folder in any layout, of the hub (hf://org/name[@revision]), or of
    a published name.

    offline: open no socket; take what is in the cache. The others tell what no file says, as num_heads
    of a bare PyTorch file; see `patchword inspect`. image_size, patch_size: pixels a side, or (rows,
    columns). head: the file of a linear head. allow_partial: draw what the file lacks at random.
    below: read only the tensors whose names begin so ("model."). drop: names or patterns of tensors to
    leave out ("head.*"); each is listed in the report.
    Raises: CheckpointError; for a fact that is in no file it names the fact and the option.
    """
    from patchword.inference.load import load as load_model

    said = Options(
        num_heads=num_heads,
        image_size=_sides(image_size, "image_size"),
        patch_size=_sides(patch_size, "patch_size"),
        pool=pool,
        act=act,
        eps=eps,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        head=None if head is None else Path(head),
        classes=None if classes is None else tuple(classes),
        allow_partial=allow_partial,
        below=below,
        drop=patterns(drop),
    )
    return load_model(path, device=device, options=said, offline=offline)


def _sides(value: int | Sequence[int] | None, name: str) -> tuple[int, int] | None:
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SettingsError(f"{name} is {value!r}", "give pixels a side, or (rows, columns)")
    return sides[0], sides[1]


def inspect(
    model: str | Path,
    *,
    options: Options | None = None,
    below: str | None = None,
    drop: Sequence[str] = (),
    offline: bool = False,
) -> "Inspected":
    """What a checkpoint is and what loading it would do; no tensor is read. Raises: CheckpointError."""
    from patchword.inference.inspect import inspected

    return inspected(model, part_of(options, below, drop), offline=offline)


def convert(
    model: str | Path,
    to: str,
    out: str | Path,
    *,
    options: Options | None = None,
    accept: Sequence[str] = (),
    below: str | None = None,
    drop: Sequence[str] = (),
    offline: bool = False,
) -> "Conversion":
    """Write a model in the layout `to` ("timm", "google", …), read it back and compare one image through both.

    accept: fields of the config that readers of the format may take otherwise ("norm.eps").
    Raises: CheckpointError naming what the format cannot hold; OutputError. Nothing stays then.
    """
    from patchword.inference.convert import convert as run_conversion

    return run_conversion(
        model, to, Path(out), options=part_of(options, below, drop), accept=accept, offline=offline
    )


def adapt(
    model: str | Path,
    out: str | Path,
    *,
    image_size: int | Sequence[int] | None = None,
    patch_size: int | Sequence[int] | None = None,
    channels: int | None = None,
    how: Literal["inflate", "average", "map"] = "inflate",
    source: Sequence[int] = (),
    classes: Sequence[str] | None = None,
    options: Options | None = None,
    offline: bool = False,
) -> "Adapted":
    """Write `model` for another size of image or patch, other channels or classes, and say what became of each tensor.

    how: new channels repeat the old in turn ("inflate"), are their mean ("average"), or those that
    `source` numbers ("map"). classes: rows of names in common are kept; a head with new rows does not
    answer before it is trained.
    Raises: SettingsError, CheckpointError, OutputError.
    """
    from patchword.checkpoints.adapt import Wanted
    from patchword.inference.adapt_file import adapt_file

    wanted = Wanted(
        image_size=_sides(image_size, "image_size"),
        patch_size=_sides(patch_size, "patch_size"),
        channels=channels,
        how=how,
        source=tuple(source),
        classes=None if classes is None else tuple(classes),
    )
    return adapt_file(model, wanted, Path(out), options=options, offline=offline)


def check(data: str | Path) -> CheckReport:
    """What is in a data set and what is wrong with it. Raises: DataError where there is none."""
    from patchword import machine

    return check_data(open_data(data), workers=machine.granted_threads())


def evaluate(
    model: "Model | str | Path", data: str | Path, *, split: str | None = None, offline: bool = False
) -> "Evaluation":
    """Score a model (or what `load` takes) on data, classes matched by name. Raises: DataError."""
    from patchword.inference import evaluate as scoring

    loaded = load(model, offline=offline) if isinstance(model, str | Path) else model
    return scoring.evaluate(loaded, scoring.open_for(loaded, data), scoring.EvaluationRequest(split=split))


def train(
    data: str | Path,
    *,
    out: str | Path | None = None,
    weights: str | Path | None = None,
    epochs: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    options: Options | None = None,
    offline: bool = False,
    progress: "Progress | None" = None,
) -> Run:
    """Train a classifier and score it: from scratch, sized to the data, or from `weights`, which is what `load` takes.

    settings: any of config.toml's by dotted path, as {"optim.lr": 3e-4}. options, offline: how the
    weights are read.
    Raises: DataError, SettingsError, CheckpointError, OutputError before anything runs; TrainingBroken,
    Interrupted.
    """
    from patchword.training.choose import Wishes
    from patchword.training.recipes.facts import Asked

    said: list[tuple[str, str, Any]] = [("run.seed", "seed", seed)]
    if weights is not None:
        said.append(("run.weights", "weights", str(weights)))
    said += [(path, "settings", value) for path, value in (settings or {}).items()]
    request = TrainRequest(
        data=str(data),
        wishes=Wishes(asked=Asked(epochs=epochs), options=tuple(said)),
        out=None if out is None else str(out),
        options=options or Options(),
        offline=offline,
    )
    return run(prepare(request, progress), progress)


def prepare(request: TrainRequest, progress: "Progress | None" = None) -> Prepared:
    """Open and check the data, read the weights to begin from, choose the settings; nothing is written yet.

    Raises: DataError for the first thing that makes training meaningless, CheckpointError.
    """
    from patchword import machine
    from patchword.training.choose import choose, wished_run
    from patchword.training.runfolder import free_folder

    machine.tune_allocator()
    early = wished_run(request.wishes)
    # One seed for all: whatever says it (option, file), the same images are held out.
    opening = replace(request.opening, seed=early.seed)
    dataset = open_data(request.data, opening)
    start = _start(request, early.weights)
    report = check_data(
        dataset, workers=machine.granted_cores(), progress=progress.reading if progress else None
    )
    if report.fatal:
        raise DataError(report.fatal[0].message, report.fatal[0].fix)
    wishes = request.wishes
    if start is not None:
        wishes = replace(wishes, asked=replace(wishes.asked, weights=start.source.card))
    chosen = choose(dataset, data_facts(report), wishes)
    if start is not None:
        from patchword.training.weights import doubts

        chosen = replace(chosen, choices=(*chosen.choices, *doubts(start, chosen.settings)))
    out = request.out or f"runs/{Path(request.data).resolve().stem}"
    return Prepared(
        dataset=dataset, report=report, chosen=chosen, opening=opening, out=free_folder(out), start=start
    )


def _start(request: TrainRequest, weights: str) -> "Start | None":
    """The weights to begin from. Raises: SettingsError for options of weights where there are none."""
    if weights:
        from patchword.training.weights import read_start

        return read_start(weights, request.options, offline=request.offline, asked=request.wishes.asked)
    said = [name for name, value in asdict(request.options).items() if value not in (None, False)]
    if said:
        raise SettingsError(
            f"{', '.join(said)}: said of weights to begin from, and none are given",
            "give --weights, or leave it out",
        )
    return None


def data_facts(report: CheckReport) -> "DataFacts":
    """What recipes look at, from what the check found."""
    from patchword.training.recipes.facts import DataFacts

    dataset = report.dataset
    unreadable = {name for name, _ in report.skipped}
    height, width = report.sizes["median"]
    return DataFacts(
        num_images=sum(name not in unreadable for name in dataset.training.names),
        num_classes=len(dataset.classes),
        channels=natural_channels(dataset),
        size=(height, width),
        mean=tuple(report.channel_mean),
        std=tuple(report.channel_std),
        mirrors=not _written_signs(dataset.classes),
    )


def _written_signs(classes: tuple[str, ...]) -> bool:
    """Classes called by one character or a number look like letters and digits, which a mirror spoils."""
    return all(len(name) == 1 or name.isdecimal() for name in classes)


def run(prepared: Prepared, progress: "Progress | None" = None) -> Run:
    """Train what `prepare` made ready, score the last averaged weights, write the report."""
    from patchword.training.train import start_run

    # A run that goes on must find the same images again.
    facts = {**prepared.report.to_dict(), "opening": asdict(prepared.opening)}
    with _reported(prepared.out):
        result = start_run(prepared.dataset, prepared.chosen, facts, prepared.out, progress, prepared.start)
        return _finish(result.folder, result.settings, prepared.dataset, result.skipped)


def resume(folder: str | Path, *, data: str | None = None, progress: "Progress | None" = None) -> Run:
    """Go on with an interrupted run from its last whole epoch. data: where the images are now, if moved."""
    from patchword import machine
    from patchword.training.runfolder import open_folder
    from patchword.training.train import read_run, resume_run

    machine.tune_allocator()
    run_folder = open_folder(folder)
    _, facts = read_run(run_folder)
    opening = from_plain(OpenRequest, facts.get("opening", {}), f"{run_folder.path}/data.json")
    dataset = open_data(data or facts["path"], opening)
    with _reported(run_folder.path):
        result = resume_run(dataset, run_folder, progress)
        return _finish(result.folder, result.settings, dataset, result.skipped)


class _reported:
    """Writes the report also of a run that was stopped, and says how to go on with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if not any((self.folder / "state").glob("*.pt")):
            if isinstance(error, KeyboardInterrupt) and not self.folder.exists():
                raise Interrupted(
                    "interrupted before the training began; no run folder is left", "give the command again"
                ) from error
            return
        go_on = f"go on with `patchword train --resume {self.folder}`"
        if isinstance(error, KeyboardInterrupt):
            kept = (self.folder / "last.safetensors").exists()
            what = "the last whole epoch is kept" if kept else "no epoch was whole yet, there are no weights"
            raise Interrupted(f"interrupted; {what}", go_on) from error
        if isinstance(error, PatchwordError) and (self.folder / "metrics.jsonl").exists():
            from patchword.reports.html import write_report

            # A report that cannot be written must not hide why the run ended.
            with contextlib.suppress(PatchwordError):
                write_report(self.folder)
        if isinstance(error, Interrupted):
            raise Interrupted(error.message, go_on) from error
        if isinstance(error, OutputError):
            raise OutputError(error.message, f"make room, then {go_on}") from error


def _finish(
    folder: Path, settings: "TrainSettings", dataset: Dataset, skipped: tuple[tuple[str, str], ...]
) -> Run:
    from patchword.inference.evaluate import evaluate as score
    from patchword.reports.html import write_report
    from patchword.training.runfolder import EVALUATION, LAST, REPORT, RunFolder

    evaluation = replace(score(load(folder / LAST), dataset), data=dataset.path)
    text = to_json(evaluation.to_dict(), indent=1)
    # A report of a run on its way is no report of the finished one: killed here, it can still go on.
    (folder / REPORT).unlink(missing_ok=True)
    RunFolder(folder).write_text(EVALUATION, text + "\n")
    write_report(folder)
    return Run(folder=folder, settings=settings, evaluation=evaluation, skipped=skipped)
