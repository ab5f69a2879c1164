"""`diagnose` of `import patchword as pw`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.python_parameters import Sides, sides
from patchword.python_words import in_python

if TYPE_CHECKING:
    from patchword.diagnosis.findings import Diagnosis


@in_python
def diagnose(
    module: Any,
    *,
    image_size: Sides = None,
    channels: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> "Diagnosis":
    """Find mistakes in a Vision Transformer by running it on noise images; its source is never read.

    module: an `nn.Module`, a class or function that builds one without arguments, or the path of a Python file
    (`my_vit.py` or `my_vit.py:ViT`), which is run. A module is copied and left as it is; a class is better, because it also
    shows how the model starts. image_size: pixels per side; None to find it, like channels. progress: called with the name
    of each probe. What the probes do: `docs/diagnose.md`.
    Raises: UserError if the file or the model does not run.
    """
    from torch import nn

    from patchword.diagnosis.case import copier
    from patchword.diagnosis.run import diagnose_model
    from patchword.diagnosis.student import load_student, split_target

    size = sides(image_size, "image_size")
    if isinstance(module, nn.Module):
        build, name = copier(module), type(module).__name__
    elif isinstance(module, str | Path):
        path, wanted = split_target(str(module))
        build, name = load_student(path, wanted, size=size, channels=channels)
    else:
        build, name = module, getattr(module, "__name__", type(module).__name__)
    return diagnose_model(build, name, size=size, channels=channels, progress=progress)
