"""Render a run folder as one HTML page that opens offline. Every number comes from the files of the run.

The page loads nothing from the network (its content security policy forbids it), works without
JavaScript, supports light and dark mode, and can be printed. All names are escaped, because they come
from folders.
"""

import base64
import functools
import hashlib
import math
import os
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from patchword.errors import OutputError, SettingsError, one_line
from patchword.model.config import ViTConfig
from patchword.reports import advice, curves, detection, sections, watching
from patchword.reports.model_facts import ModelFacts, model_facts
from patchword.reports.run_files import RunFiles, read_run
from patchword.settings import from_plain
from patchword.training.runfolder import REPORT
from patchword.weights.card import ModelCard

# A larger confusion matrix is unreadable; the most frequent pairs are listed instead.
LARGEST_MATRIX = 40
MAX_PAIRS = 25
# Images up to this size are enlarged without smoothing, so that their pixels stay visible.
TINY_PX = 48
MAX_FAILURES = 200
_THUMBNAIL = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into the run folder and return its path.

    An unfinished run also gets a page, which lists what is still missing.

    Raises: DataError if the folder holds no run or one of its files is damaged; OutputError if the
    page cannot be written.
    """
    run = read_run(Path(run_folder))
    path = run.folder / REPORT
    write_page(path, render(run))
    return path


def render(run: RunFiles) -> str:
    """Return the page as text. The same files give the same bytes."""
    return filled("report.html.j2", page(run))


def filled(
    template: str, values: dict[str, Any], *, style: str = "report.css", script: str = "report.js"
) -> str:
    """The page of this template, with style and script and the policy that allows no others.

    style: a further style sheet, after that of every report. script: the one script of the page.
    """
    environment = _environment()
    names = dict.fromkeys(("report.css", style))
    code = _template_text(environment, script)
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = environment.get_template(template).render(
        script=Markup(code),
        style=Markup("".join(_template_text(environment, name) for name in names)),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        **values,
    )
    # Escape names as on the terminal: a bidirectional control character would reverse the text around it.
    return "\n".join(map(one_line, text.split("\n")))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("patchword.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= FILTERS
    return environment


def page(run: RunFiles) -> dict[str, Any]:
    """All values that the templates use, by section."""
    # Scores of several classes, of numbers or of boxes have their own section; the others are about one class per image.
    kind = (run.evaluation or {}).get("task")
    pixels = run.evaluation if kind == "mae" else None
    boxes = detection.section(run.evaluation) if kind == "detect" else None
    targets = run.evaluation if kind and not pixels and not boxes else None
    evaluation = sections.with_ranks(run.evaluation) if run.evaluation and not kind else None
    per_class = sections.per_class(run, evaluation)
    detector = (run.config.get("task") or {}).get("detector")
    classes = run.data.get("classes") or [c["name"] for c in (evaluation or {}).get("classes", [])]
    return {
        "run": run,
        "folder": run.folder.as_posix(),
        "data": run.data,
        "title": sections.data_name(run),
        "evaluation": evaluation,
        "targets": targets,
        "pixels": pixels,
        "detection": boxes and boxes | {"worst": [with_safe_thumbnail(image) for image in boxes["worst"]]},
        "progress": sections.progress(run),
        "hints": sections.hints(run, evaluation),
        "charts": [] if watching.is_probe(run) else curves.charts(run),
        "classes": classes,
        "per_class": per_class,
        "advice": advice.advice(advice.facts_of(run, evaluation, per_class)),
        "gap": watching.training_gap(evaluation),
        "floor": watching.floor(run, evaluation),
        "stages": watching.stages(run),
        "groups": watching.groups(run),
        "skipped": run.skipped,
        "calibration": watching.calibration(evaluation),
        "thresholds": watching.thresholds(evaluation),
        "confused": [
            pair | {"mistakes": [with_safe_thumbnail(m) for m in pair.get("mistakes", [])]}
            for pair in watching.pairs(evaluation)
        ],
        "matrix": sections.matrix(evaluation, LARGEST_MATRIX),
        "pairs": sections.confused_pairs(evaluation, MAX_PAIRS),
        "mistakes": [with_safe_thumbnail(m) for m in (evaluation or {}).get("mistakes", [])],
        "tiny": max((run.data.get("sizes") or {}).get("max") or [TINY_PX + 1]) <= TINY_PX,
        "splits": sections.splits(run.data),
        "most_failures": MAX_FAILURES,
        "scores_file": "evaluation.json",
        "model": _model(run, 0 if detector else len(classes)),
        "detector": detector,
        "provenance": sections.provenance(run),
        "tables": sections.settings_tables(run.settings),
        "quoted": {
            "folder": shlex.quote(run.folder.as_posix()),
            "data": shlex.quote(sections.data_path(run)),
            "python": repr(run.folder.as_posix()),
        },
    }


def _model(run: RunFiles, num_classes: int) -> ModelFacts | None:
    """The model from the weights, else from config.toml; None if the run never started. Of a detector, its backbone."""
    if isinstance(run.card, ModelCard):
        return model_facts(run.card.config, None)
    plain = run.config.get("model")
    if not plain:
        return None
    try:
        return model_facts(from_plain(ViTConfig, plain, str(run.folder / "config.toml")), num_classes)
    except SettingsError:
        return None


def with_safe_thumbnail(mistake: dict[str, Any]) -> dict[str, Any]:
    """Drop the thumbnail of a mistake unless it is an embedded image."""
    picture = mistake.get("thumbnail") or ""
    return mistake | {"thumbnail": picture if _THUMBNAIL.fullmatch(picture) else ""}


def _template_text(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def write_page(path: Path, text: str) -> None:
    """Write to a temporary file and rename it, so that a reader never sees a partial page."""
    handle = -1
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".html")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if handle != -1:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(
            f"{path}: the report cannot be written ({error.strerror})",
            "free some space, or make the folder writable",
        ) from error


def percent(share: Any, places: int = 1) -> str:
    """0.9917 → "99.2 %", with a non-breaking space; "–" if there is no number.

    Only exactly 1 is shown as "100 %", and only exactly 0 as "0 %".
    """
    if not is_number(share):
        return "–"
    least = 10.0**-places
    shown = share * 100
    if 100 - least / 2 <= shown < 100:
        return f"> {100 - least:.{places}f}\u00a0%"
    if 0 < shown < least / 2:
        return f"< {least:.{places}f}\u00a0%"
    return f"{shown:.{places}f}".removesuffix(f".{'0' * places}" if shown in (0, 100) else "\0") + "\u00a0%"


def count(value: Any) -> str:
    """12345 → "12,345"."""
    return f"{value:,}" if is_number(value) else "–"


def number(value: Any, digits: int = 4) -> str:
    """A number rounded to `digits` significant digits."""
    return f"{value:.{digits}g}" if is_number(value) else "–"


def duration(seconds: Any) -> str:
    """95 → "1 min 35 s"; the two largest units."""
    if not is_number(seconds):
        return "–"
    if round(seconds) < 60:
        return f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min {rest}\u00a0s" if rest else f"{minutes}\u00a0min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u00a0h {minutes}\u00a0min" if minutes else f"{hours}\u00a0h"


def reason(failure: dict[str, Any]) -> str:
    """Why a file failed, without its name, which the page shows first."""
    text, name = str(failure.get("reason", "")), str(failure.get("name", ""))
    return text.removeprefix(name).lstrip(": ") if name else text


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


FILTERS = {"percent": percent, "count": count, "number": number, "duration": duration, "reason": reason}
