"""Which reconstruction goes into which column, and what the text next to it says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from patchword.errors import SettingsError, plural
from patchword.explaining.drawing.files import write_page
from patchword.explaining.reconstruction import Reconstructed, mean_losses
from patchword.images.stored import Pixels
from patchword.inference.output import whole_file
from patchword.reports.sheet import Column, Row, Sheet, data_url, draw_sheet

MOST_ROWS = 100
# Images of fewer pixels are enlarged by a page, and show them.
SMALL_PX = 138
BASELINE_NAMES = {"patch_mean": "patch mean", "nearest": "nearest patch", "bilinear": "bilinear"}
HONEST = "with mean and contrast guessed from visible patches"
BORROWED = "with each patch's true mean and contrast"


def check_number(images: int) -> None:
    """Raises: SettingsError if one picture cannot hold so many images."""
    if images > MOST_ROWS:
        raise SettingsError(
            f"{images} images are too many for one picture, which holds {MOST_ROWS}",
            f"add --images {MOST_ROWS} to draw a sample, or --json for the numbers alone",
        )


def reconstruction_sheet(images: Sequence[Reconstructed], model: str, seed: int) -> Sheet:
    """Original, masked and reconstructed images, one row each."""
    normalised = images[0].borrowed is not None
    share = 100 * images[0].hidden.mean()
    shown, results = ("original", "masked"), ("reconstruction", "visible pasted in")
    columns = [Column(name) for name in shown]
    for group in (HONEST, BORROWED) if normalised else ("",):
        columns += [Column(name, group) for name in results]
    rows = []
    for image in images:
        cells: tuple[Pixels, ...] = (image.original, image.masked, image.full, image.pasted)
        if image.borrowed is not None and image.borrowed_pasted is not None:
            cells = (*cells, image.borrowed, image.borrowed_pasted)
        note = loss_words(image.losses)
        hidden = f"{image.hidden.sum()} of {image.hidden.size} patches hidden"
        rows.append(Row(image.name, f"{hidden}; {note}", cells))
    mean = f"Mean of {plural(len(images), 'image')}: {loss_words(mean_losses([image.losses for image in images]))}."
    return Sheet(
        title=(f"Reconstructions by {model}, {share:.0f} % of the patches hidden, seed {seed}", mean),
        columns=columns,
        rows=rows,
        notes=reconstruction_notes(normalised),
    )


def reconstruction_notes(normalised: bool) -> list[str]:
    """What the columns and the numbers mean."""
    notes = [
        "Loss: mean squared error over the hidden patches, "
        + ("after each patch is standardised" if normalised else "in units of the model's input")
        + "; lower is better. Patch mean: every hidden patch filled with its own true mean. Nearest patch, bilinear: "
        "filled from the visible patches, without a model.",
    ]
    notes.append(
        "Training compares hidden patches only, so what the reconstruction shows in place of visible ones means little."
    )
    if normalised:
        notes.append(
            "This model predicts patches without their mean and contrast. In the third and fourth column, these are "
            "interpolated from the visible patches. The last two columns take them from the hidden patches themselves, "
            "as published demos do: they look better than what the model knows."
        )
    return notes


def write_sheet(sheet: Sheet, path: Path) -> None:
    """Write a picture, or a page if the path ends in .html. Raises: OutputError."""
    if path.suffix.lower() == ".png":
        with whole_file(path, text=False) as file:
            draw_sheet(sheet).save(file, "PNG")
        return
    rows = [
        {
            "name": row.name,
            "note": row.note,
            "cells": list(map(data_url, row.cells)),
            "small": max(row.cells[0].shape) < SMALL_PX,
        }
        for row in sheet.rows
    ]
    write_page(path, "sheet.html.j2", {"sheet": sheet, "rows": rows, "groups": _groups(sheet.columns)})


def loss_words(losses: Mapping[str, float]) -> str:
    """ "loss 0.43, patch mean 1.00, …" """
    words = [f"loss {losses['model']:.3f}"]
    words += [f"{BASELINE_NAMES[name]} {value:.3f}" for name, value in losses.items() if name != "model"]
    return ", ".join(words)


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """(group, number of columns) for the upper line of headings."""
    found: list[tuple[str, int]] = []
    for column in columns:
        if found and found[-1][0] == column.group:
            found[-1] = (column.group, found[-1][1] + 1)
        else:
            found.append((column.group, 1))
    return found
