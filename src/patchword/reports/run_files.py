"""Read the files of a run, without torch and without trusting them.

Names come from other people's folders, and an interrupted run may have written only part of its files.
So everything except the folder itself may be missing or truncated.
"""

import json
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.containers.header import read_header
from patchword.errors import CheckpointError, DataError
from patchword.weights.card import CARD_KEY, ModelCard, card_from_json
from patchword.weights.detector_card import DetectorCard, detector_card_from_json, is_detector_card

MAX_LOG_CHARACTERS = 30_000
WEIGHTS = "last.safetensors"
KNOWN_FILES = ("config.toml", "data.json", "metrics.jsonl", "evaluation.json", "log.txt")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One line of config.toml: the value as written there and its source ("" if not given)."""

    table: str
    name: str
    value: str
    source: str

    @property
    def path(self) -> str:
        return f"{self.table}.{self.name}" if self.table else self.name


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run folder as plain data.

    evaluation: None until the run is evaluated. card: the model card of the last weights, None while
    there are none. broken: the record of a run that diverged, else None. skipped: the steps that changed nothing,
    because a value was not finite.
    """

    folder: Path
    settings: tuple[Setting, ...]
    config: dict[str, Any]
    data: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    steps: tuple[dict[str, Any], ...]
    evaluation: dict[str, Any] | None
    log: str
    card: ModelCard | DetectorCard | None
    broken: dict[str, Any] | None = None
    skipped: tuple[dict[str, Any], ...] = ()


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises: DataError if the folder holds no run, or a file is damaged (a truncated metrics log is accepted).
    """
    if not any((folder / name).is_file() for name in KNOWN_FILES):
        raise DataError(f"{folder} is not a run folder", "give a folder that `patchword train` created")
    records = _read_records(folder / "metrics.jsonl")
    # A resumed run may write an epoch again; the last record of each epoch counts.
    by_epoch = {r["epoch"]: r for r in records if r.get("kind") == "epoch"}
    config_text = _read_text(folder / "config.toml")
    return RunFiles(
        folder=folder,
        settings=tuple(settings_of(config_text)),
        config=_parse_toml(folder / "config.toml", config_text),
        data=_read_json(folder / "data.json") or {},
        epochs=tuple(by_epoch[e] for e in sorted(by_epoch)),
        steps=tuple(r for r in records if r.get("kind") == "step"),
        evaluation=_read_json(folder / "evaluation.json"),
        log=_end_of(printable(_read_text(folder / "log.txt"), keep="\n\t")),
        card=_read_card(folder / WEIGHTS),
        skipped=tuple({r.get("step"): _clean(r) for r in records if r.get("kind") == "skipped"}.values()),
        broken=next((_clean(r) for r in reversed(records) if r.get("kind") == "broken"), None),
    )


def _end_of(text: str) -> str:
    """The text, or only its last lines if it is long."""
    if len(text) <= MAX_LOG_CHARACTERS:
        return text
    return "…\n" + text[-MAX_LOG_CHARACTERS:].partition("\n")[2]


def _read_card(path: Path) -> ModelCard | DetectorCard | None:
    """The card in the header of the weights, or None, because the page can do without it."""
    try:
        text = read_header(path).metadata.get(CARD_KEY, "")
        read = detector_card_from_json if is_detector_card(text) else card_from_json
        return read(text, path.name)
    except CheckpointError:
        return None


def settings_of(text: str) -> list[Setting]:
    """The values of a settings file in order, each with the comment next to it."""
    found, table = [], ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("[") and "]" in stripped and "=" not in stripped:
            table = stripped[1 : stripped.rindex("]")]
        elif "=" in stripped and not stripped.startswith("#"):
            code, comment = _split_comment(stripped)
            name, _, value = code.partition("=")
            found.append(Setting(table=table, name=name.strip(), value=value.strip(), source=comment))
    return found


def _split_comment(line: str) -> tuple[str, str]:
    """`a = "#1"  # recipe` → (`a = "#1"`, `recipe`): the comment starts at the first # after complete TOML."""
    places = [i for i, character in enumerate(line) if character == "#"]
    for place in places:
        try:
            tomllib.loads(line[:place])
        except tomllib.TOMLDecodeError:
            continue
        return line[:place].strip(), line[place + 1 :].strip()
    return line, ""


def printable(text: str, keep: str = "") -> str:
    r"""Escape control characters, lone surrogates and bidirectional controls as \xNN or \uNNNN.

    Text in any script is unchanged; only characters that would hide or damage text are escaped.
    """
    hidden = {"Cc", "Cs"}
    overrides = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape", "surrogatepass").decode("ascii")
        if c not in keep and (unicodedata.category(c) in hidden or c in overrides)
        else c
        for c in text
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(v) for v in value]
    if isinstance(value, dict):
        return {printable(str(k)): _clean(v) for k, v in value.items()}
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}", "make the file readable") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    text = _read_text(path)
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: {error}", "restore the file from a copy") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is not a JSON object", "restore the file")
    cleaned = _clean(value)
    assert isinstance(cleaned, dict)
    return cleaned


def _read_records(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a log, one per line; a truncated line is skipped."""
    records = []
    for line in _read_text(path).splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("epoch"), int):
            records.append(record)
    return records


def _parse_toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: {error}", "fix the file; it must be valid TOML") from error
