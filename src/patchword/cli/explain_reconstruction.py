"""`patchword explain` of a masked autoencoder: what it reconstructs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from patchword.cli.console import say
from patchword.cli.given_images import Images
from patchword.cli.loading import report_loading
from patchword.cli.model_options import given_options
from patchword.cli.progress import counting
from patchword.errors import plural
from patchword.settings import to_json

if TYPE_CHECKING:
    from patchword.explaining.reconstruction import Reconstructed
    from patchword.inference.load_mae import LoadedMAE


def explain_reconstruction(
    model: str,
    given: Images,
    *,
    out: Path | None,
    as_json: bool,
    mask_ratio: float | None,
    seed: int,
    count: int | None,
    device: str | None,
    offline: bool,
    value_range: tuple[float, float] | None,
) -> None:
    """Load the autoencoder, reconstruct, draw and print. Raises: PatchwordError."""
    from patchword.inference.load_mae import load_mae

    loaded = load_mae(model, device=device, options=given_options(), offline=offline)
    report_loading(loaded.report)
    how = {"mask_ratio": mask_ratio, "seed": seed}
    images = _reconstructions(loaded, given, how, count, value_range, drawn=out is not None)
    _show(loaded, model, how, images, out, as_json)
    images.failures.check(images.count, "reconstructed")


class _Images:
    """Reconstructed images. numbers: of each. drawn: their pixels, None if nothing is drawn."""

    def __init__(self, count: int, *, drawn: bool) -> None:
        from patchword.inference.failures import Failures

        self.count, self.failures = count, Failures()
        self.numbers: list[dict[str, Any]] = []
        # Without a picture, any number of images can be measured.
        self.drawn: list[Reconstructed] | None = [] if drawn else None

    @property
    def mean(self) -> dict[str, float]:
        from patchword.explaining.reconstruction import mean_losses

        return mean_losses([row["losses"] for row in self.numbers])


def _reconstructions(
    loaded: "LoadedMAE",
    given: Images,
    how: dict[str, Any],
    count: int | None,
    value_range: tuple[float, float] | None,
    *,
    drawn: bool,
) -> _Images:
    from patchword.explaining.drawing.reconstruction import check_number
    from patchword.explaining.reconstruction import reconstruct_each
    from patchword.explaining.sample import as_named, chosen

    sources = [as_named(item) for item in chosen(given.known_to(loaded.card), count, how["seed"])]
    if drawn:
        check_number(len(sources))
    images = _Images(len(sources), drawn=drawn)
    with counting("reconstructing") as progress:
        for image in reconstruct_each(
            loaded.mae,
            loaded.card.preprocess.with_range(value_range),
            sources,
            **how,
            max_pixels=given.reading.opening.max_pixels,
            failures=images.failures,
        ):
            images.numbers.append(image.numbers())
            if images.drawn is not None:
                images.drawn.append(image)
            if progress:
                progress(len(images.numbers), len(sources))
    return images


def _show(
    loaded: "LoadedMAE", model: str, how: dict[str, Any], images: _Images, out: Path | None, as_json: bool
) -> None:
    from patchword.explaining.drawing.reconstruction import (
        reconstruction_notes,
        reconstruction_sheet,
        write_sheet,
    )

    if as_json:
        _print_json(loaded, how, images)
    elif images.numbers:
        _print_losses(images)
        click.echo("\n" + click.wrap_text(reconstruction_notes(loaded.mae.config.norm_targets)[0], 80))
    if images.drawn and out is not None:
        write_sheet(reconstruction_sheet(images.drawn, Path(model).name, how["seed"]), out)
        say(f"{plural(len(images.drawn), 'image')} drawn: {out}")


def _print_json(loaded: "LoadedMAE", how: dict[str, Any], images: _Images) -> None:
    given, config = how["mask_ratio"], loaded.mae.config
    facts = {
        "model": str(loaded.report.path),
        "mask_ratio": config.mask_ratio if given is None else given,
        "seed": how["seed"],
        "normalised_targets": config.norm_targets,
    }
    click.echo(to_json({**facts, "images": images.numbers, "mean": images.mean}, indent=2))


def _print_losses(images: _Images) -> None:
    """A table of 80 columns: 24 for the name, 14 for each number."""
    from patchword.explaining.drawing.reconstruction import BASELINE_NAMES

    names = {"model": "model", **BASELINE_NAMES}
    click.echo(f"{'loss over hidden patches':<24}" + "".join(f"{name:>14}" for name in names.values()))
    rows = [(row["file"], row["losses"]) for row in images.numbers]
    if len(rows) > 1:
        rows.append((f"mean of {len(rows)} images", images.mean))
    for name, losses in rows:
        shown = name if len(name) <= 23 else "…" + name[-22:]
        say(f"{shown:<24}" + "".join(f"{losses[key]:>14.3f}" for key in names), err=False)
