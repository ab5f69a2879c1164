"""The page of a comparison: scores by setting and seed, differences with both intervals, curves, cost. Computes no score."""

from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from patchword.reports import plots
from patchword.reports.html import filled, is_number, percent, write_page
from patchword.reports.plots import Chart, Line
from patchword.training.runfolder import REPORT, write_whole

PICTURE = "comparison.svg"
# Colours that stay apart for readers who see red and green alike, on light and on dark paper.
LIGHT = ("#1a6a86", "#b34d12", "#6f559e", "#2c7a4b", "#8f6b00", "#a8326b", "#4b5563", "#00796b")
DARK = ("#6cbfd9", "#f2a06d", "#b9a3e3", "#7fcf9d", "#e0c050", "#ef8fb8", "#c3cad3", "#63d0c0")
WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = 760, 34, 170, 130, 14, 42
_LABEL = 24
# Varied settings in the title.
_NAMED = 3


def write_comparison(folder: Path, result: dict[str, Any]) -> Path:
    """Write report.html and comparison.svg into the folder. result: as in comparison.json. Raises: OutputError."""
    write_whole(folder / PICTURE, picture(result, alone=True).encode())
    path = folder / REPORT
    write_page(path, filled("comparison.html.j2", page(result)))
    return path


def page(result: dict[str, Any]) -> dict[str, Any]:
    """All values that the template uses."""
    by_name = {c["name"]: c for c in result["contrasts"]}
    arms = [arm | {"contrast": by_name.get(arm["name"])} for arm in result["arms"]]
    seeds = sorted({run["seed"] for arm in arms for run in arm["runs"]})
    return {
        "folder": result["folder"] or "",
        "title": result["path"],
        "result": result,
        "arms": arms,
        "seeds": seeds,
        "table": [_by_seed(arm, seeds) for arm in arms],
        "picture": picture(result),
        "curves": curves(result),
        "colours": _style(),
        "points": _points,
        "interval": _interval,
        "varied": _varied(result["factors"]),
        "method": _methods(result),
    }


def _varied(factors: list[str]) -> str:
    if not factors:
        return "finished runs"
    more = f" and {len(factors) - _NAMED} more settings" if len(factors) > _NAMED else ""
    return ", ".join(factors[:_NAMED]) + more


def _methods(result: dict[str, Any]) -> dict[str, str]:
    """How each kind of interval was computed; "none" if no two settings could be compared."""
    found = {}
    for part in ("seeds", "images"):
        names = dict.fromkeys(c[part]["method"] for c in result["contrasts"] if c[part] is not None)
        found[part] = " and ".join(names) or "none"
    return found


def _by_seed(arm: dict[str, Any], seeds: list[int]) -> dict[str, Any]:
    runs = {run["seed"]: run for run in arm["runs"]}
    return {"name": arm["name"], "runs": [runs.get(seed) for seed in seeds]}


def _points(share: Any) -> str:
    """0.0123 as "+1.2"."""
    return f"{100 * share:+.1f}" if is_number(share) else "–"


def _interval(found: dict[str, Any] | None) -> str:
    return "–" if found is None else f"{_points(found['low'])} to {_points(found['high'])}"


def curves(result: dict[str, Any]) -> dict[str, Any] | None:
    """Mean validation score by epoch, of as many settings as there are colours; None without any."""
    shown = [arm for arm in result["arms"] if arm["curve"]][: len(LIGHT)]
    if not shown:
        return None
    lines = [
        Line(
            name=arm["name"], points=[(epoch, score) for epoch, _, score in arm["curve"]], style=f"line c{i}"
        )
        for i, arm in enumerate(shown)
    ]
    ends = "; ".join(f"{line.name} ends at {percent(line.points[-1][1])}" for line in lines)
    chart = Chart(
        title=f"Mean validation {result['measure']} by epoch",
        description=f"{ends}.",
        lines=lines,
        show=lambda value: f"{value * 100:.3g}\u00a0%",
        y_most=1.0,
        slug="curves",
    )
    key = [(line.style, line.name) for line in lines]
    return {"picture": plots.svg(chart), "key": key, "left_out": len(result["arms"]) - len(shown)}


def _style() -> Markup:
    light = "".join(f".chart .c{i}{{stroke:{c}}}.key .c{i}{{color:{c}}}" for i, c in enumerate(LIGHT))
    dark = "".join(f".chart .c{i}{{stroke:{c}}}.key .c{i}{{color:{c}}}" for i, c in enumerate(DARK))
    drawn = (
        ".dots{max-width:48rem;width:100%;height:auto}.dots .seed{fill:var(--blue);opacity:.45}"
        ".dots .span{stroke:var(--blue);stroke-width:3}.dots .mean{fill:var(--blue)}.dots .name{fill:var(--ink)}"
        ".dots .base{stroke:var(--soft);stroke-dasharray:4 4}"
    )
    return Markup(f"{light}{drawn}@media (prefers-color-scheme:dark){{{dark}}}")


# For a file that is seen without the page's style sheet.
_ALONE = (
    "text{font:12px system-ui,sans-serif;fill:#59616c}.name{fill:#1d2127}.grid{stroke:#e2dfd6}"
    ".seed{fill:#1a6a86;opacity:.45}.span{stroke:#1a6a86;stroke-width:3}.mean{fill:#1a6a86}"
    ".base{stroke:#59616c;stroke-dasharray:4 4}"
)


def picture(result: dict[str, Any], *, alone: bool = False) -> Markup:
    """A row for each setting: a dot for each run, the mean, and its 95 % interval over seeds. alone: as a file of its own."""
    arms = [arm for arm in result["arms"] if is_number(arm["mean"])]
    if not arms:
        return Markup('<svg xmlns="http://www.w3.org/2000/svg"/>' if alone else "")
    values = [run["score"] for arm in arms for run in arm["runs"] if is_number(run["score"])]
    values += [end for arm in arms for end in (arm["interval"] or ())]
    ticks = plots.ticks(min(values), max(values), 6, most=1.0)
    low, high = float(ticks[0]), float(max(ticks[-1], *values))
    wide, height = WIDTH - LEFT - RIGHT, TOP + ROW * len(arms) + BOTTOM

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * wide

    parts = []
    for tick in ticks:
        parts.append(
            f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
        )
        label = f"{tick * 100:.3g} %"
        parts.append(
            f'<text x="{x(tick):.1f}" y="{height - BOTTOM + 16}" text-anchor="middle">{label}</text>'
        )
    base = next((arm for arm in arms if arm["name"] == result["baseline"]), None)
    if base is not None:
        at = f"{x(base['mean']):.1f}"
        parts.append(f'<line class="base" x1="{at}" x2="{at}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    verdicts = {c["name"]: c for c in result["contrasts"]}
    parts += [_row(arm, verdicts.get(arm["name"]), TOP + ROW * (i + 0.5), x) for i, arm in enumerate(arms)]
    parts.append(
        f'<text x="{LEFT + wide / 2:.0f}" y="{height - 6}" text-anchor="middle">{escape(result["measure"])}; bar: 95 % interval of the mean over seeds</text>'
    )
    text = "; ".join(f"{arm['name']} {percent(arm['mean'])}" for arm in arms)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart dots" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="dots-title dots-text"><title id="dots-title">'
        f"{escape(result['measure'])} by setting</title>"
        f'<desc id="dots-text">{escape(text)}.</desc>'
    )
    ground = (
        f'<style>{_ALONE}</style><rect width="{WIDTH}" height="{height}" fill="#fbfaf7"/>' if alone else ""
    )
    # Every part above is generated in this module or escaped.
    return Markup("".join([head, ground, *parts, "</svg>"]) + ("\n" if alone else ""))


def _row(arm: dict[str, Any], contrast: dict[str, Any] | None, y: float, x: Any) -> str:
    name = arm["name"] if len(arm["name"]) <= _LABEL else arm["name"][: _LABEL - 1] + "…"
    parts = [f'<text class="name" x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>']
    if arm["interval"]:
        ends = [f"{x(end):.1f}" for end in arm["interval"]]
        parts.append(f'<line class="span" x1="{ends[0]}" x2="{ends[1]}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for run in arm["runs"]:
        if is_number(run["score"]):
            title = f"<title>seed {run['seed']}: {percent(run['score'])}</title>"
            parts.append(
                f'<circle class="seed" cx="{x(run["score"]):.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'
            )
    at = x(arm["mean"])
    parts.append(f'<path class="mean" d="M{at:.1f} {y - 7:.1f}l5 7l-5 7l-5 -7z"/>')
    word = (
        "baseline"
        if contrast is None
        else f"{_points((contrast['images'] or {}).get('mean'))} {contrast['kind']}"
    )
    parts.append(f'<text x="{WIDTH - RIGHT + 14}" y="{y + 4:.1f}">{escape(word)}</text>')
    return "".join(parts)
