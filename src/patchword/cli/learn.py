"""`patchword learn`: one page that explains a Vision Transformer with numbers of the user's own model and image."""

from pathlib import Path

import click

from patchword import machine
from patchword.cli.console import say
from patchword.cli.loading import report_loading
from patchword.cli.model_options import given_options, model_options
from patchword.cli.options import offline_option
from patchword.cli.progress import counting

DEFAULT_OUT = "learn.html"


@click.command()
@click.argument("model", required=False)
@click.argument("image", required=False)
@click.option(
    "--out",
    "--output",
    "output",
    default=DEFAULT_OUT,
    show_default=True,
    metavar="FILE",
    help="The page to write, .html.",
)
@click.option(
    "--language",
    type=click.Choice(("en", "zh")),
    default="en",
    show_default=True,
    help="Language of the page: English or Chinese.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of everything random on the page.",
)
@offline_option
@model_options
def learn(model: str | None, image: str | None, output: str, language: str, seed: int, offline: bool) -> None:
    """Write a page that shows how a Vision Transformer works, step by step.

    \b
    MODEL   a run folder, weights file, hf://org/name[@revision] or published name;
            without it, a small ViT is trained on handwritten digits (under a minute)
    IMAGE   an image, or a folder or data set with images, of which the seed chooses
            one; without it, a handwritten digit

    \b
    patchword learn
    patchword learn runs/flowers rose.jpg --out rose.html
    patchword learn rose.jpg --language zh

    Every number on the page is computed from this model and this image, and every step ends with three
    lines of Python that print it again. The page is one file that opens offline. Steps that need a CNN
    or several trainings use small models of digits, and say so.
    """
    machine.start_sampling()
    from patchword.lessons.write import check_out, write_page

    path = Path(output)
    check_out(path)
    machine.tune_allocator()
    from patchword.lessons.page import panels_of
    from patchword.lessons.subject import open_subject

    subject = open_subject(model, image, seed=seed, options=given_options(), offline=offline)
    if subject.model is not None:
        report_loading(subject.model.report)
    else:
        say("no model is given: training small models of handwritten digits on the spot")
    with counting("steps") as progress:
        panels = panels_of(subject, progress)
    written = write_page(subject, panels, path, "zh" if language == "zh" else "en", (model, image))
    for line in written:
        say(line)
