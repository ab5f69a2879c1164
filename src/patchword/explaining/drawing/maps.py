"""Maps over their images, and the sentences next to them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patchword.explaining.explanation import Explained, Explanation, Map
from patchword.explaining.faithfulness import CENTRE, RANDOM, Curves
from patchword.explaining.methods.outliers import CUT
from patchword.images.stored import Pixels
from patchword.reports.sheet import Column, Row, Sheet

AWARE, FREE = "knows the class", "the same for every class"
# Share of a map in a pixel; the rest is the image in grey.
_OPACITY = 0.6
# From low to high, as sRGB: dark violet to light yellow; and blue over white to red for signed maps.
_HEAT = ((13, 8, 60), (84, 15, 109), (159, 42, 99), (217, 87, 61), (249, 149, 22), (252, 232, 120))
_SIGNED = ((33, 80, 180), (120, 165, 225), (245, 245, 245), (235, 130, 110), (178, 24, 43))
_TOKENS = {"class": "the class token", "distillation": "the distillation token", "registers": "registers"}
# Below this probability, a map of an asked class says what speaks for a class that the model does not see.
DOUBTFUL = 0.1


def map_sheet(found: Explanation, model: str) -> Sheet:
    """A row per image: as the model gets it, then one column per map."""
    first = found.images[0]
    columns = [Column("image")]
    columns += [Column(each.label, AWARE if each.class_aware else FREE) for each in first.maps]
    rows = []
    for image in found.images:
        assert image.pixels is not None
        cells = (image.pixels, *(overlay(image.pixels, each) for each in image.maps))
        rows.append(Row(image.name, image_words(image), cells))
    lines = [f"Explanations of answers by {model}", *([f"{found.why}."] if found.why else [])]
    return Sheet(
        title=lines,
        columns=columns,
        rows=rows,
        notes=[*doubtful(found), *faithfulness_words(found), *explanation_notes(found)],
    )


def overlay(pixels: Pixels, shown: Map) -> Pixels:
    """The map in colours over the grey image [H, W, C] uint8; colours of `pca` alone, without the image."""
    height, width = pixels.shape[:2]
    if shown.values.ndim == 3:
        return _spread((shown.values * 255).round().astype(np.uint8), (height, width))
    colours = _spread(_coloured(shown), (height, width)).astype(np.float32)
    grey = pixels.astype(np.float32).mean(axis=2, keepdims=True)
    mixed: Pixels = (_OPACITY * colours + (1 - _OPACITY) * grey).round().clip(0, 255).astype(np.uint8)
    return mixed


def _coloured(shown: Map) -> Pixels:
    """[h, w] → [h, w, 3]. A map of one sign starts at zero, so that noise does not look like a finding.

    Relevance, to which the residual adds the same for every patch, starts at its smallest value. Norms end at least where
    outliers begin.
    """
    values = shown.values.astype(np.float64)
    if shown.signed:
        largest = np.abs(values).max() or 1.0
        return _between(_SIGNED, values / (2 * largest) + 0.5)
    low = values.min() if shown.method == "relevance" else 0.0
    high = max(values.max(), CUT * np.median(values)) if shown.method == "outliers" else values.max()
    return _between(_HEAT, (values - low) / ((high - low) or 1.0))


def _between(stops: Sequence[tuple[int, int, int]], shares: NDArray[np.float64]) -> Pixels:
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(shares, at, [stop[i] for stop in stops]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _spread(cells: Pixels, size: tuple[int, int]) -> Pixels:
    """Each patch as a block of equal colour."""
    rows = np.minimum(np.arange(size[0]) * cells.shape[0] // size[0], cells.shape[0] - 1)
    columns = np.minimum(np.arange(size[1]) * cells.shape[1] // size[1], cells.shape[1] - 1)
    spread: Pixels = cells[rows[:, None], columns]
    return spread


def image_words(image: Explained) -> str:
    """The answer, the class that is explained, and what the maps say in numbers."""
    words = []
    if image.answer and image.probability is not None:
        words.append(f"{image.answer} {100 * image.probability:.1f} %")
        if image.explained != image.answer and image.explained_probability is not None:
            words.append(f"explained: {image.explained} {100 * image.explained_probability:.1f} %")
    elif image.explained:
        words.append(f"explained: {image.explained}")
    for method in dict.fromkeys(each.method for each in image.maps):
        words += _facts([each for each in image.maps if each.method == method])
    return "; ".join(words) or "no classes"


def _facts(maps: Sequence[Map]) -> list[str]:
    """What the maps of one method say in numbers, several layers or heads in a row."""
    method, words = maps[0].method, []
    for name in maps[0].elsewhere:
        words.append(
            f"{method}: {', '.join(f'{100 * each.elsewhere[name]:.0f}' for each in maps)} % on {_TOKENS[name]}"
        )
    for each in maps:
        if "outliers" in each.facts:
            words.append(
                f"{each.facts['outliers']:.0f} outliers, norms of {each.facts['median']:.3g} (median) "
                f"to {each.facts['largest']:.3g}"
            )
        if "variance_1" in each.facts:
            held = [
                f"{100 * each.facts[key]:.0f}" for key in sorted(each.facts) if key.startswith("variance")
            ]
            words.append(f"the colours hold {', '.join(held)} % of the variance")
    return words


def doubtful(found: Explanation) -> list[str]:
    """A note for images in which the explained class is improbable."""
    notes = []
    for image in found.images:
        share = image.explained_probability
        if share is not None and share < DOUBTFUL and image.explained != image.answer:
            notes.append(
                f"{image.name}: the model gives {image.explained} {100 * share:.1f} % here, and answers {image.answer}. "
                f"Its maps show what speaks for {image.explained}, not that it is there."
            )
    return notes


def faithfulness_table(found: Explanation) -> list[str]:
    """Lines of 80 columns: 30 for the name, 9 for each number."""
    if not found.faithfulness:
        return []
    fills = list(found.scores.fills)
    several = len(fills) > 1
    head = "".join(f"{fill:>9}" * 2 for fill in fills) + " " * 18
    names = ("deletion", "insert.") * len(fills)
    lines = [f"\n{'removed patches: fill' if several else '':<26}{head}".rstrip()] if several else [""]
    lines.append(f"{'map':<26}" + "".join(f"{name:>9}" for name in (*names, "gain", "shuffled")))
    any_map = next(iter(found.faithfulness.values()))
    for label, of in found.faithfulness.items():
        lines.append(_line(label, of.curves, f"{of.shuffled:.2f}"))
    lines.append(_line("random order", any_map.random, ""))
    lines.append(_line("centre first", any_map.centre, ""))
    return lines


def _line(label: str, curves: Curves, shuffled: str) -> str:
    numbers = []
    for fill in curves.deletion:
        numbers += [f"{curves.deletion[fill].mean():.2f}", f"{curves.insertion[fill].mean():.2f}"]
    shown = label if len(label) <= 26 else label[:25] + "…"
    return (f"{shown:<26}" + "".join(f"{n:>9}" for n in (*numbers, f"{curves.gain:.2f}", shuffled))).rstrip()


def faithfulness_words(found: Explanation) -> list[str]:
    """One sentence per map: deletion and insertion, mean of fills, next to the baselines."""

    def mean(curves: Curves) -> tuple[float, float]:
        fills = list(curves.deletion)
        deletion = sum(float(curves.deletion[fill].mean()) for fill in fills) / len(fills)
        return deletion, sum(float(curves.insertion[fill].mean()) for fill in fills) / len(fills)

    words = []
    for label, of in found.faithfulness.items():
        own, random, centre = mean(of.curves), mean(of.random), mean(of.centre)
        words.append(
            f"{label}: deletion {own[0]:.2f} ({RANDOM} {random[0]:.2f}, {CENTRE} {centre[0]:.2f}), insertion {own[1]:.2f} "
            f"({RANDOM} {random[1]:.2f}, {CENTRE} {centre[1]:.2f}); correlation with shuffled weights {of.shuffled:.2f}."
        )
    return words


def explanation_notes(found: Explanation) -> list[str]:
    """What the maps and the numbers mean."""
    maps = found.images[0].maps
    notes = [f"{name}: {title}." for name, title in found.titles.items()]
    if found.why:
        notes.append(f"Method: {found.why}.")
    free = list(dict.fromkeys(each.method for each in maps if not each.class_aware))
    if free:
        notes.append(
            f"{', '.join(free)} {'knows' if len(free) == 1 else 'know'} no class: the map is the same for every class."
        )
    if any(each.values.ndim == 2 for each in maps):
        notes.append(
            "Colours of each map run to its own largest value; of norms, at least to where outliers begin."
        )
    if any(each.signed for each in maps):
        notes.append("Red speaks for the class, blue against it.")
    if found.faithfulness:
        of = found.images[0].probability is not None
        notes.append(
            f"Faithfulness on {found.scored} of the images, {found.scores.steps} steps: the mean "
            f"{'probability of the class' if of else 'similarity to the whole embedding'} while the marked patches go "
            "(deletion, low is good) or come (insertion, high is good); gain is insertion less deletion. Shuffled: rank "
            "correlation with the map of the same model with shuffled weights; near 0 is good."
        )
        worse = [label for label, of in found.faithfulness.items() if of.curves.gain <= of.random.gain]
        if worse:
            notes.append(f"No better than a random order here: {', '.join(worse)}.")
    return notes
