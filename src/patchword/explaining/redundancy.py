"""How much of an image its surroundings already say: correlation of pixels, and patches predicted from their neighbours.

Each measure is taken on the images, on the same images with their patches shuffled (each image by itself), and on white
noise with the images' mean and deviation. No torch.

Shapes: n images, patches of p pixels per side in a grid of R x R, C channels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.errors import DataError, SettingsError

FARTHEST = 64
PATCH_DISTANCES = (1, 2, 4)
FEWEST_IMAGES = 4
# About so many rows, and as many columns, give the correlations.
LINES = 8192
# A neighbour is given to the regression as the mean colours of so many cells per side.
CELLS = 4
# Of the ridge: times the mean variance of the inputs, times the number of patches.
PENALTIES = tuple(10.0**power for power in range(-4, 4))
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one source of images gives.

    correlation: distance in pixels → correlation of two pixels, all images together. within: the same, each image's own
    mean taken off first. mean_colour, ridge: distance in patches → R² of `redundancy`.
    """

    correlation: Mapping[int, float]
    within: Mapping[int, float]
    mean_colour: Mapping[int, float]
    ridge: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Redundancy:
    """images, shuffled, noise: see the module. patch: pixels per side. count, size: of the images."""

    images: Measured
    shuffled: Measured
    noise: Measured
    patch: int
    count: int
    size: int

    @property
    def sources(self) -> dict[str, Measured]:
        return {"images": self.images, "patches shuffled": self.shuffled, "white noise": self.noise}

    def numbers(self) -> dict[str, Any]:
        """Plain values for JSON. Distances are keys, in pixels or patches."""
        facts = {"images": self.count, "image_size": self.size, "patch_size": self.patch}
        return facts | {"sources": {name: asdict(source) for name, source in self.sources.items()}}

    def complete(self, distance: int) -> bool:
        """Whether some patch has all eight neighbours at this distance."""
        return self.size // self.patch > 2 * distance


def redundancy(images: NDArray[np.uint8] | Floats, patch: int = 16, seed: int = 0) -> Redundancy:
    """Measure images [n, S, S, C].

    Correlation: Pearson's, of grey values (the mean of the channels), over pairs of pixels at a distance along rows and along
    columns. Of more than 8,192 rows or columns, an even sample of about that many.

    R²: the share of the variance of pixels, about the mean of their channel, that a prediction explains. It is scored on
    half of the images, with two predictors. mean_colour: the mean colour of the eight patches at a distance, without
    fitting. ridge: a linear regression from those eight, each as 4 x 4 mean colours, to the 4 x 4 mean colours of the patch;
    what varies inside those counts as not predicted. It is fitted on the other half, its penalty chosen on a third of that.
    Only patches with all eight neighbours count. In a grid too small for that (`Redundancy.complete`), all count, and the
    mean of the neighbours inside the image replaces those outside. Distances that the grid does not have are left out.

    Args:
        images: uint8, or float of any scale. Rows and columns beyond whole patches are cut off.
        patch: pixels per side.
        seed: of the halves, the shuffling and the noise.

    Raises: DataError for fewer than four images or for images of a single colour; SettingsError if an image has fewer than
    two patches per side.
    """
    require_measurable(len(images), images.shape[1], patch)
    side = images.shape[1] // patch
    pixels = images[:, : side * patch, : side * patch].astype(np.float32)
    centre = pixels.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    pixels -= centre
    spread = np.sqrt(np.square(pixels).mean(axis=(0, 1, 2), dtype=np.float64)).astype(np.float32)
    if not spread.any():
        raise DataError(f"all {len(images)} images are of one colour", "give images that show something")
    draws = np.random.default_rng((seed, 0))
    order = draws.permutation(len(images))
    noise = draws.standard_normal(pixels.shape, dtype=np.float32) * spread
    return Redundancy(
        images=_measured(pixels, patch, order),
        shuffled=_measured(_shuffled(pixels, patch, draws), patch, order),
        noise=_measured(noise, patch, order),
        patch=patch,
        count=len(images),
        size=side * patch,
    )


def require_measurable(count: int, size: int, patch: int) -> None:
    """Raises: as `redundancy`."""
    if count < FEWEST_IMAGES:
        raise DataError(
            f"redundancy needs at least {FEWEST_IMAGES} images, and there {'is' if count == 1 else 'are'} {count}",
            "give more images: half of them fit a regression, the others score it",
        )
    if size < 2 * patch:
        most = size // 2
        raise SettingsError(
            f"images of {size} x {size} pixels have fewer than two patches of {patch} x {patch} per side",
            f"use patches of at most {most} pixels" if most else "use larger images",
        )


def _shuffled(pixels: Floats, patch: int, draws: np.random.Generator) -> Floats:
    """The patches of each image in random order."""
    patches = _patches(pixels, patch)
    n, side = patches.shape[:2]
    flat = patches.reshape(n, side * side, patch, patch, -1)
    mixed = np.stack([image[draws.permutation(side * side)] for image in flat])
    return mixed.reshape(patches.shape).transpose(0, 1, 3, 2, 4, 5).reshape(pixels.shape)


def _patches(pixels: Floats, patch: int) -> Floats:
    """[n, S, S, C] → [n, R, R, p, p, C]"""
    n, size, _, channels = pixels.shape
    side = size // patch
    return pixels.reshape(n, side, patch, side, patch, channels).transpose(0, 1, 3, 2, 4, 5)


def _measured(pixels: Floats, patch: int, order: NDArray[np.int64]) -> Measured:
    cells, grey = _cells(pixels, patch), pixels.mean(axis=3)
    fitted, scored = cells.of(order[: len(order) // 2]), cells.of(order[len(order) // 2 :])
    distances = [d for d in PATCH_DISTANCES if d < cells.means.shape[1]]
    return Measured(
        correlation=correlation(grey),
        within=correlation(grey - grey.mean(axis=(1, 2), keepdims=True)),
        mean_colour={d: _mean_colour(scored, d) for d in distances},
        ridge={d: _ridge(fitted, scored, d) for d in distances},
    )


def correlation(planes: Floats) -> dict[int, float]:
    """Distance in pixels, from 1 to 64 or the size of the image → correlation, of grey images [n, H, W]."""
    n, height, width = planes.shape
    # A sample of the rows and columns, evenly spaced, is enough.
    lines = (
        planes.reshape(-1, width)[:: max(n * height // LINES, 1)],
        planes.transpose(0, 2, 1).reshape(-1, height)[:: max(n * width // LINES, 1)],
    )
    # One product holds the sums for every distance: on its d-th diagonal.
    sums = [(len(line), line.sum(axis=0, dtype=np.float64), _gram(line, line)) for line in lines]
    farthest = min(FARTHEST, height - 1, width - 1)
    return {distance: _pearson(sums, distance) for distance in range(1, farthest + 1)}


def _pearson(sums: list[tuple[int, Doubles, Doubles]], distance: int) -> float:
    """sums: lines, the sum of each position [W], and the products of positions [W, W], for both directions."""
    count = sum(lines * (len(first) - distance) for lines, first, _ in sums)
    a = sum(first[:-distance].sum() for _, first, _ in sums) / count
    b = sum(first[distance:].sum() for _, first, _ in sums) / count
    aa = sum(np.diagonal(product)[:-distance].sum() for _, _, product in sums) / count - a * a
    bb = sum(np.diagonal(product)[distance:].sum() for _, _, product in sums) / count - b * b
    ab = sum(np.diagonal(product, distance).sum() for _, _, product in sums) / count - a * b
    return float(ab / np.sqrt(aa * bb)) if aa > 0 and bb > 0 else 0.0


def _neighbours(cells: Floats, distance: int) -> Floats:
    """The eight neighbours of the patches `_counted`: [n, R, R, F] → [n, r, r, 8, F]."""
    n, side, _, width = cells.shape
    found = np.zeros((n, side, side, len(_RING), width), np.float32)
    inside = np.zeros((side, side, len(_RING), 1), np.float32)
    for index, (down, right) in enumerate(_RING):
        to_rows, from_rows = _shift(side, down * distance)
        to_columns, from_columns = _shift(side, right * distance)
        found[:, to_rows, to_columns, index] = cells[:, from_rows, from_columns]
        inside[to_rows, to_columns, index] = 1
    available = inside.sum(axis=2, keepdims=True)
    mean = found.sum(axis=3, keepdims=True) / np.maximum(available, 1)
    counted = _counted(side, distance)
    filled: Floats = found + (1 - inside) * mean
    return filled[:, counted, counted]


def _counted(side: int, distance: int) -> slice:
    """The rows, and columns, of patches with all eight neighbours; all rows if there are none."""
    return slice(distance, side - distance) if side > 2 * distance else slice(None)


def _shift(side: int, by: int) -> tuple[slice, slice]:
    """Places that have a place `by` further, and those places."""
    return slice(max(-by, 0), side - max(by, 0)), slice(max(by, 0), side - max(-by, 0))


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Patches as mean colours of up to 4 x 4 cells.

    means: [n, R, R, cells, C]. areas: pixels of each cell. squares: the sum of squared pixels of each patch, [n, R, R].
    """

    means: Floats
    areas: Floats
    squares: Doubles

    def counted(self, distance: int) -> "_Cells":
        rows = _counted(self.means.shape[1], distance)
        return replace(self, means=self.means[:, rows, rows], squares=self.squares[:, rows, rows])

    def of(self, images: NDArray[np.int64]) -> "_Cells":
        return replace(self, means=self.means[images], squares=self.squares[images])


def _cells(pixels: Floats, patch: int) -> _Cells:
    n, size, _, channels = pixels.shape
    side, count = size // patch, min(CELLS, patch)
    starts = np.arange(count) * patch // count
    lengths = np.diff(np.append(starts, patch)).astype(np.float32)
    all_starts = (np.arange(side)[:, None] * patch + starts).ravel()
    sums = np.add.reduceat(np.add.reduceat(pixels, all_starts, axis=1), all_starts, axis=2)
    sums = sums.reshape(n, side, count, side, count, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = _patches(pixels, patch)
    areas = (lengths[:, None] * lengths).reshape(-1, 1)
    return _Cells(
        means=sums.reshape(n, side, side, count * count, channels) / areas,
        areas=areas,
        squares=np.einsum("nabxyc,nabxyc->nab", patches, patches, dtype=np.float64),
    )


def _mean_colour(scored: _Cells, distance: int) -> float:
    """R² of the neighbours' mean colour."""
    area = float(scored.areas.sum())
    colours = (scored.means * scored.areas).sum(axis=3) / area
    guess = _neighbours(colours, distance).mean(axis=3)
    counted = _counted(colours.shape[1], distance)
    colours = colours[:, counted, counted]
    # The sum of (pixel - guess)² over a patch, less that of pixel².
    change = area * (guess * guess - 2 * guess * colours).sum(dtype=np.float64)
    return -float(change / scored.counted(distance).squares.sum())


def _ridge(fitted: _Cells, scored: _Cells, distance: int) -> float:
    """R² on the images `scored` of a regression fitted on the others."""
    images = np.arange(len(fitted.means))
    third = max(len(images) // 3, 1)
    choosing, rest = (_products(fitted.of(part), distance) for part in (images[:third], images[third:]))
    trials = [_explained(_weights(rest, penalty), choosing) for penalty in PENALTIES]
    both = choosing[0] + rest[0], choosing[1] + rest[1]
    weights = _weights(both, PENALTIES[int(np.argmax(trials))])
    return float(_explained(weights, _products(scored, distance)) / scored.counted(distance).squares.sum())


_Products = tuple[Doubles, Doubles]


def _products(cells: _Cells, distance: int) -> _Products:
    """Sums over patches: inputs x inputs, inputs x targets. Both are centred: `redundancy` takes the mean colour off.

    Targets count by the root of their area, so that squared errors are sums over pixels.
    """
    n, side = cells.means.shape[:2]
    inputs = _neighbours(cells.means.reshape(n, side, side, -1), distance)
    inputs = inputs.reshape(-1, inputs.shape[3] * inputs.shape[4])
    targets = (cells.counted(distance).means * np.sqrt(cells.areas)).reshape(len(inputs), -1)
    return _gram(inputs, inputs), _gram(inputs, targets)


def _weights(products: _Products, penalty: float) -> Doubles:
    inputs, targets = products
    added = max(penalty * float(np.trace(inputs)) / len(inputs), 1e-12)
    weights: Doubles = np.asarray(np.linalg.solve(inputs + added * np.eye(len(inputs)), targets), np.float64)
    return weights


def _explained(weights: Doubles, products: _Products) -> float:
    """By how much a prediction lowers the sum of squared errors, from the products alone."""
    inputs, targets = products
    return 2 * float((weights * targets).sum()) - float((weights * (inputs @ weights)).sum())


def _gram(left: Floats, right: Floats) -> Doubles:
    """leftᵀ right. Summed in float64 over blocks, so that many images lose no digits."""
    total: Doubles = np.zeros((left.shape[1], right.shape[1]))
    for start in range(0, len(left), 4096):
        np.add(total, left[start : start + 4096].T @ right[start : start + 4096], out=total)
    return total
