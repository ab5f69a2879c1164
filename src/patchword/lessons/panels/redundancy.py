"""How much of an image its surroundings say, and a masked autoencoder that guesses the rest."""

import contextlib
import importlib.util
from pathlib import Path

import numpy as np
import torch

from patchword.errors import DataError, ImageError, SettingsError
from patchword.explaining.redundancy import Redundancy, redundancy
from patchword.explaining.sample import read_sample
from patchword.images.decode import decode
from patchword.inference.failures import Failures
from patchword.lessons.laboratory import PREPROCESS
from patchword.lessons.measures.guessing import explained
from patchword.lessons.panel import Bars, Check, Curve, Figure, Gallery, Lesson, Panel, Plot, Step, Tile
from patchword.lessons.subject import Subject, levels
from patchword.lessons.words import Text
from patchword.model.mae import unpatchify

MOST = 60
TILE = 64


def images_of(subject: Subject) -> tuple[np.ndarray, int]:
    """The images that redundancy is measured on, [n, S, S, C], and the size of their patches.

    The given images, if there are at least four; else tiles of the one that was given, or of two photographs that come with
    scikit-learn; if none is large enough, 200 digits.
    """
    if len(subject.photos) >= 4:
        with contextlib.suppress(DataError, SettingsError):
            sample = read_sample(subject.photos, count=MOST, patch=16, seed=subject.seed, failures=Failures())
            return sample.images, 16
    sources = [photo.fetch() for photo in subject.photos[:1]] or list(sample_photographs())
    tiles: list[np.ndarray] = []
    for source in sources:
        with contextlib.suppress(ImageError, DataError):
            tiles += tiles_of(decode(source, channels=3), MOST // len(sources))
    if len(tiles) >= 4 and any(tile.std() for tile in tiles):
        return np.stack(tiles), 8
    scans = subject.lab.training.images[:200]
    return np.stack([levels(scan, PREPROCESS) for scan in scans]), 2


def sample_photographs() -> list[Path]:
    """The two photographs of scikit-learn's package, if they are there."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.origin if spec and spec.origin else "").parent / "datasets/images"
    return [path for path in (folder / "china.jpg", folder / "flower.jpg") if path.is_file()]


def tiles_of(pixels: np.ndarray, most: int = MOST) -> list[np.ndarray]:
    """Squares of 64 pixels of [H, W, C], at most `most`, evenly chosen."""
    rows, columns = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    places = [(r * TILE, c * TILE) for r in range(rows) for c in range(columns)]
    places = places[:: max(-(-len(places) // most), 1)]
    return [pixels[top : top + TILE, left : left + TILE].astype(np.float32) for top, left in places]


def panel(subject: Subject) -> Panel:
    images, patch = images_of(subject)
    found = redundancy(images, patch, subject.seed)
    guesses = explained(subject.lab.mae, subject.lab.test.images, subject.seed)
    numbers = {
        "count": found.count,
        "size": found.size,
        "patch": patch,
        "near": found.images.correlation[1],
        "near_shuffled": found.shuffled.correlation[1],
        "mean_colour": found.images.mean_colour[1],
        "ridge": found.images.ridge[1],
        "noise": found.noise.ridge[1],
        "model": guesses["model"],
        "nearest": guesses["nearest"],
        "bilinear": guesses["bilinear"],
    }
    return Panel(
        notes=Text(
            "As the MAE paper says, natural images are redundant: neighbouring pixels carry about the same information.",
            "根据 MAE 论文中所说的,自然图像具有冗余性,即相邻像素点代表的信息是差不多的。",
        ),
        lead=[_source(subject, found, patch), _PATCHES, _MODEL],
        numbers=numbers,
        steps=[
            Step(name=Text("patches", "patch"), shape="[1, 16, 4]"),
            Step(
                name=Text("visible", "可见"),
                shape="[1, 4, 4]",
                op=Text("hide 12 of 16", "遮住 16 个中的 12 个"),
            ),
            Step(name=Text("encoded", "编码"), shape="[1, 5, 48]", op=Text("ViT", "ViT")),
            Step(name=Text("guessed", "猜测"), shape="[1, 16, 4]", op=Text("decoder", "解码器")),
        ],
        figures=[_curves(found), _guesses(guesses), _reconstructions(subject)],
        question=Text(
            "JPEG files are small. Does that show that photographs are redundant?",
            "JPEG 文件很小,这能说明照片是冗余的吗?",
        ),
        answer=Text(
            "Not in this sense: JPEG drops what is hard to see. Stored without loss, photographs take 4 to 5 bits per byte, English text "
            "about 3. The last bits of a pixel are noise. What is redundant is what you would miss, hence prediction as the measure.",
            "不是这个意义上的:JPEG 丢掉了难以看出的部分。无损存储时,照片每字节要 4 到 5 比特,英文文本约 3 比特:像素的最低几位是噪声。"
            "冗余的是你会在意的那部分,所以这里用“预测”来衡量。",
        ),
        check=Check(
            code="from patchword.explaining.redundancy import redundancy\n"
            "from patchword.lessons.panels.redundancy import images_of\n"
            f'print(f"{{redundancy(*images_of(subject), seed={subject.seed}).images.correlation[1]:.3f}}")',
            prints=f"{numbers['near']:.3f}",
        ),
        places=["explaining/redundancy.py", "model/mae.py", "lessons/measures/guessing.py"],
        sources=["He et al. 2022 (arXiv 2111.06377), section 1"],
    )


_PATCHES = Text(
    "Whole patches can be guessed too: the mean colour of the eight neighbours explains {mean_colour:.0%} of a patch (R²), a linear "
    "regression from them {ridge:.0%}. Of white noise, {noise:.0%}.",
    "整块 patch 也能猜:八个邻居的平均颜色能解释一个 patch 的 {mean_colour:.0%}(R²),线性回归能解释 {ridge:.0%};白噪声则是 {noise:.0%}。",
)
_MODEL = Text(
    "A masked autoencoder makes a task of it. Ours hides 12 of the 16 patches of a digit and reaches R² = {model:.2f} on them. Copying the "
    "nearest visible patch gives {nearest:.2f}, interpolation {bilinear:.2f}; below 0 is worse than one grey for all.",
    "MAE 把它变成一个任务。我们的小 MAE 遮住数字的 16 个 patch 里的 12 个,在被遮住的部分达到 R² = {model:.2f}。复制最近的可见 patch 得 {nearest:.2f},"
    "插值得 {bilinear:.2f};低于 0 表示还不如全填一种灰色。",
)


def _source(subject: Subject, found: Redundancy, patch: int) -> Text:
    if patch == 16:
        what = "{count} of your images", "你的 {count} 张图片"
    elif patch == 8 and subject.photos:
        what = "{count} squares cut from your image", "从你的图片里切出的 {count} 个方块"
    elif patch == 8:
        what = "{count} squares of two photographs", "从两张照片里切出的 {count} 个方块"
    else:
        what = "{count} digits (a larger image shows more)", "{count} 个手写数字(更大的图片能看到更多)"
    return Text(
        f"In {what[0]} of {{size}} x {{size}} pixels, neighbouring pixels have a correlation of {{near:.2f}}; after the patches are "
        "shuffled, {near_shuffled:.2f}.",
        f"{what[1]},每张 {{size}} x {{size}} 像素:相邻像素的相关系数是 {{near:.2f}};打乱 patch 之后是 {{near_shuffled:.2f}}。",
    )


def _curves(found: Redundancy) -> Figure:
    names = (
        (Text("images", "图片"), found.images.correlation),
        (Text("less the mean of each", "减去各图均值"), found.images.within),
        (Text("patches shuffled", "打乱 patch"), found.shuffled.correlation),
        (Text("white noise", "白噪声"), found.noise.correlation),
    )
    curves = [Curve(name=name, points=list(values.items())) for name, values in names]
    return Figure(
        picture=Plot(
            title=Text("Correlation of two pixels", "两个像素的相关系数"),
            x_name=Text("distance in pixels", "距离(像素)"),
            curves=curves,
            from_zero=min(min(c.values()) for _, c in names) > -0.02,
        ),
        caption=Text("The same images in four forms.", "同一组图片的四种形式。"),
    )


def _guesses(guesses: dict[str, float]) -> Figure:
    names = {
        "model": Text("masked autoencoder", "MAE"),
        "nearest": Text("nearest patch", "最近的 patch"),
        "bilinear": Text("interpolated", "插值"),
    }
    return Figure(
        picture=Bars(
            title=Text("R² on hidden patches of 360 digits", "360 个数字被遮住部分的 R²"),
            rows=[(names[name], value) for name, value in guesses.items()],
            most=1.0,
        ),
        caption=Text("Trained for a moment on 1,437 other digits.", "在另外 1437 个数字上训练了片刻。"),
    )


@torch.no_grad()
def _reconstructions(subject: Subject) -> Figure:
    mae, image = subject.lab.mae, subject.lab.test.images[:1]
    tiles = [Tile(label=Text("original", "原图"), pixels=levels(image[0], PREPROCESS))]
    for draw in range(3):
        masking = mae.masking(torch.rand(1, 16, generator=subject.lab.generator(10 + draw)))
        patches, hidden = mae.patches(image), masking.mask[..., None] > 0
        for label, values in (
            (Text("visible", "可见"), torch.where(hidden, torch.zeros_like(patches), patches)),
            (Text("guessed", "猜测"), torch.where(hidden, mae.predict(image, masking), patches)),
        ):
            tiles.append(Tile(label=label, pixels=levels(unpatchify(values, (2, 2), (4, 4))[0], PREPROCESS)))
    return Figure(
        picture=Gallery(tiles=tiles, width=84),
        caption=Text("Three draws of the visible patches.", "三次随机选出的可见 patch。"),
    )


LESSON = Lesson(
    slug="redundancy",
    title=Text("Redundancy, and guessing what is hidden", "冗余,以及猜测被遮住的部分"),
    make=panel,
)
