"""Settings that the user specified, in a file and as options: one ordered table, which recipes read."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchword import settings as tree
from patchword.training.config import TrainSettings

# Command options and Python parameters that set one settings path each.
PATHS = {
    "recipe": "run.recipe",
    "model": "model",
    "image_size": "model.image.size",
    "patch_size": "model.patch.size",
    "epochs": "schedule.epochs",
    "batch_size": "run.batch_size",
    "lr": "optim.lr",
    "seed": "run.seed",
    "split_seed": "run.split_seed",
    "threads": "run.threads",
    "device": "run.device",
    "weights": "run.weights",
    "teacher": "task.distill.teacher",
    "balance": "task.balance",
    "tune": "tune",
    "cache": "run.cache",
    "find_lr": "run.find_lr",
    "max_time": "run.max_minutes",
    "patience": "run.patience",
    "value_range": "preprocess.reading.value_range",
}
# The same, of pre-training alone.
PRETRAINING = {
    "mask_ratio": "task.decoder.mask_ratio",
    "decoder_dim": "task.decoder.dim",
    "decoder_depth": "task.decoder.depth",
    "decoder_heads": "task.decoder.num_heads",
    "norm_targets": "task.decoder.norm_targets",
    "watch": "task.watch",
}
# A named model and an image size set these too; an older file's values would contradict them.
_FOLLOW_FROM = {
    "model": ("preprocess", "run.stored_size", "augment.view"),
    "task.distill.teacher": ("task.distill.sha256",),
    "model.image.size": ("preprocess.image_size", "preprocess.resize", "run.stored_size", "augment.view"),
}


@dataclass(frozen=True)
class Overlay:
    """Dotted path → (value, source), in the order given; a later entry replaces those at and below its path.

    Values are as given in the file or option, so text from `-o` is not parsed yet. `model` may be the name of a
    size. source: "file NAME", "option --lr".
    """

    entries: Mapping[str, tuple[Any, str]] = field(default_factory=dict)

    def get(self, path: str) -> Any:
        """The value at `path`, converted to the setting's type; None if the user did not specify it.

        Raises: SettingsError for a value of the wrong type.
        """
        if path not in self.entries:
            return None
        value, source = self.entries[path]
        return tree.typed(TrainSettings, path, value, source)

    def model_name(self) -> str | None:
        """The model size that the user specified by name."""
        value, _ = self.entries.get("model", (None, ""))
        is_name = isinstance(value, str) and not value.lstrip().startswith("{")
        return value if is_name else None

    def source(self, path: str) -> str:
        return self.entries[path][1]

    def sources(self) -> dict[str, str]:
        return {path: source for path, (_, source) in self.entries.items()}

    def is_option(self, path: str) -> bool:
        return path in self.entries and not _is_file(self.entries[path][1])

    def kind(self, part: str) -> str | None:
        """The kind that the user gave a part with several kinds, as a whole or by its `kind`."""
        value = self.entries.get(part, (None, ""))[0]
        kind = (
            value.get("kind")
            if isinstance(value, Mapping)
            else self.entries.get(f"{part}.kind", (None, ""))[0]
        )
        return None if kind is None else str(kind)

    def has_any(self, part: str) -> bool:
        """Whether the user set `part` or anything in it."""
        return any(_is_within(path, part) for path in self.entries)

    def has_file(self) -> bool:
        return any(_is_file(source) for _, source in self.entries.values())

    def with_options(self, given: Iterable[tuple[str, Any, str]]) -> "Overlay":
        """Add options as (path, value, source), in this order; a later one wins."""
        entries = dict(self.entries)
        for path, value, source in given:
            # The file's fields belong to the kind given in the file.
            other_kind = path.endswith(".kind") and path in entries and entries[path][0] != value
            part_of_kind = (path.removesuffix(".kind"),) if other_kind else ()
            for old in list(entries):
                in_file = _is_file(entries[old][1])
                followers = (*_FOLLOW_FROM.get(path, ()), *part_of_kind) if in_file else ()
                if any(_is_within(old, part) for part in (path, *followers)):
                    del entries[old]
            entries[path] = (value, source)
        return Overlay(entries)

    def laid_over(self, settings: TrainSettings) -> TrainSettings:
        """Apply every entry to `settings`. Raises: SettingsError for an unknown path (with suggestions) or value."""
        left = {p: e for p, e in self.entries.items() if p != "model" or self.model_name() is None}
        in_file = {p: e for p, e in left.items() if _is_file(e[1])}
        if in_file:
            file = next(iter(in_file.values()))[1].removeprefix("file ")
            merged = tree.merged(tree.to_plain(settings), _nested(in_file))
            settings = tree.from_plain(TrainSettings, merged, file)
        return tree.replace_all(
            settings, [(p, value, source) for p, (value, source) in left.items() if p not in in_file]
        )


def make_overlay(
    config_file: str | Path | None = None,
    options: Iterable[tuple[str, str, Any]] = (),
    overrides: Iterable[str] = (),
) -> Overlay:
    """Combine the file, options as (path, name, value) and the texts of `-o`, in this order; later ones win.

    Raises: SettingsError if the file cannot be read or a text has no "=".
    """
    entries: dict[str, tuple[Any, str]] = {}
    if config_file is not None:
        source = f"file {Path(config_file).name}"
        entries = {path: (value, source) for path, value in _leaves(tree.read_toml(config_file))}
        # The file of an earlier run contains that run's recipe; this run chooses its own.
        entries.pop("run.recipe", None)
    given = [(path, value, f"option {name}") for path, name, value in options]
    given += [(*tree.parse_override(text), "option -o") for text in overrides]
    return Overlay(entries).with_options(given)


def _is_file(source: str) -> bool:
    return source.startswith("file ")


def _is_within(path: str, part: str) -> bool:
    return path == part or path.startswith(f"{part}.")


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _nested(entries: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in entries.items():
        *parts, name = path.split(".")
        table = nested
        for part in parts:
            table = table.setdefault(part, {})
        table[name] = value
    return nested
