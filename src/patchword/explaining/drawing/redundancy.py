"""The curves, the tables and the sentences of `explain --redundancy`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from patchword.errors import plural
from patchword.explaining.drawing.files import write_page
from patchword.explaining.redundancy import CELLS, Measured, Redundancy
from patchword.explaining.sample import Sample
from patchword.inference.output import whole_file
from patchword.reports.plot_picture import draw_charts
from patchword.reports.plots import Chart, Line, svg

SHOWN_DISTANCES = (1, 2, 4, 8, 16, 32, 64)


def redundancy_title(found: Redundancy, sample: Sample, files: Sequence[str], seed: int) -> list[str]:
    """What was measured: a heading, and a line with sizes, sample and seed."""
    # The name alone: the folder that holds it does not matter to a reader of the picture.
    names = ", ".join(Path(file).name or file for file in files[:3]) + (", …" if len(files) > 3 else "")
    count = (
        f"all {found.count} images"
        if found.count == sample.total
        else f"{found.count} of {sample.total} images, chosen at random"
    )
    return [
        f"How much the images of {names} repeat themselves",
        f"{count}; {found.size} x {found.size} pixels, patches of {found.patch} x {found.patch}; seed {seed}",
    ]


def redundancy_charts(found: Redundancy) -> tuple[Chart, Chart]:
    """Correlation against distance in pixels, R² against distance in patches."""
    images, shuffled, noise = found.images, found.shuffled, found.noise

    def line(name: str, values: Mapping[int, float], style: str, marks: bool = False) -> Line:
        return Line(name=name, points=list(values.items()), style=style, marks=marks)

    pixels = Chart(
        title="Correlation of two pixels",
        description="How alike two pixels are, against their distance.",
        lines=[
            line("images", images.correlation, "val"),
            line("images, less the mean of each", images.within, "train"),
            line("patches shuffled", shuffled.correlation, "top5"),
            line("white noise", noise.correlation, "rate"),
        ],
        show=lambda value: f"{value:.1f}",
        from_zero=_above_zero(images.correlation, images.within, shuffled.correlation, noise.correlation),
        slug="correlation",
        x_name="distance in pixels",
    )
    patches = Chart(
        title="Share of a patch that its eight neighbours explain",
        description="How much of a patch its neighbours explain, against their distance.",
        lines=[
            line("images, regression", images.ridge, "val", True),
            line("images, mean colour of the neighbours", images.mean_colour, "train", True),
            line("patches shuffled, regression", shuffled.ridge, "top5", True),
            line("white noise, regression", noise.ridge, "rate", True),
        ],
        show=lambda value: f"{value:.1f}",
        from_zero=_above_zero(images.ridge, images.mean_colour, shuffled.ridge, noise.ridge),
        slug="patches",
        x_name="distance in patches",
    )
    return pixels, patches


def redundancy_notes(found: Redundancy, sample: Sample) -> list[str]:
    """What the numbers say, and how they were found."""
    near, cells = min(found.images.ridge), min(CELLS, found.patch)
    notes = [
        f"Neighbouring patches explain {_share(found.images.ridge[near])} of a patch of these images, "
        f"{_share(found.shuffled.ridge[near])} once the patches are shuffled (what the colours of the image itself say), "
        f"and {_share(found.noise.ridge[near])} of white noise.",
        f"Half of the images fit the regression, the other {found.count - found.count // 2} are scored. It sees each of "
        f"the eight neighbours as {cells} x {cells} mean colours.",
    ]
    if partly := [d for d in found.images.ridge if not found.complete(d)]:
        notes.append(
            f"At a distance of {' and '.join(map(str, partly))} no patch has all eight neighbours in the image; "
            "the mean of the others replaces those outside."
        )
    if sample.enlarged:
        notes.append(
            f"{plural(sample.enlarged, 'image')} smaller than {found.size} x {found.size} pixels were enlarged, "
            "which makes neighbouring pixels more alike."
        )
    return notes


def redundancy_tables(found: Redundancy) -> list[dict[str, Any]]:
    """Two tables: title, headings, and rows of a name and one text for each heading."""
    distances = [d for d in SHOWN_DISTANCES if d in found.images.correlation]
    patches = list(found.images.ridge)

    def numbers(values: Mapping[int, float], keys: Sequence[int]) -> list[str]:
        # No "-0.00".
        return [f"{values[key] + 0.0 if abs(values[key]) >= 0.005 else 0.0:.2f}" for key in keys]

    def both(source: Measured) -> list[str]:
        return numbers(source.mean_colour, patches) + numbers(source.ridge, patches)

    rows = [(name, numbers(source.correlation, distances)) for name, source in found.sources.items()]
    rows.insert(1, ("  less own mean", numbers(found.images.within, distances)))
    return [
        {
            "title": "Correlation of two pixels, by distance in pixels",
            "groups": [],
            "headings": [str(d) for d in distances],
            "rows": rows,
        },
        {
            "title": "R² of a patch from its eight neighbours, by distance in patches",
            "groups": ["mean colour", "regression"],
            "headings": [str(d) for d in patches] * 2,
            "rows": [(name, both(source)) for name, source in found.sources.items()],
        },
    ]


def write_redundancy(found: Redundancy, sample: Sample, title: Sequence[str], path: Path) -> None:
    """Write two charts as a picture, or as a page with its table if the path ends in .html. Raises: OutputError."""
    charts, notes = redundancy_charts(found), redundancy_notes(found, sample)
    if path.suffix.lower() == ".png":
        with whole_file(path, text=False) as file:
            draw_charts(charts, title, notes).save(file, "PNG")
        return
    unbroken = [note.replace(" %", "\u00a0%") for note in notes]
    figures = [
        {"title": c.title, "picture": svg(c), "key": [(line.style, line.name) for line in c.lines]}
        for c in charts
    ]
    write_page(
        path,
        "redundancy.html.j2",
        {"title": title, "figures": figures, "notes": unbroken, "tables": redundancy_tables(found)},
    )


def _share(value: float) -> str:
    return f"{100 * max(value, 0):.0f} %"


def _above_zero(*curves: Mapping[int, float]) -> bool:
    """Whether nothing but rounding lies below zero."""
    return min(min(curve.values()) for curve in curves) > -0.02
