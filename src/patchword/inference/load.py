"""`load`: from a run folder or a weights file to a Model."""

from pathlib import Path
from typing import TYPE_CHECKING

from patchword import machine
from patchword.checkpoints.find import find_weights
from patchword.checkpoints.native import fill, read_card, read_model

if TYPE_CHECKING:
    import torch

    from patchword.inference.model import Model


def load(path: str | Path, *, device: "str | torch.device | None" = None, offline: bool = False) -> "Model":
    """The model of a run folder (its last averaged weights), a folder with one weights file, a file, of a
    name of the hub (hf://org/name[@revision]) or of a published release.

    device: None takes a GPU where there is one. offline: open no socket, take what is cached.
    Weights are mapped from disk into a model that was built without any, so nothing is drawn at
    random and nothing is held twice.
    Raises: CheckpointError that says what the file is, or how it contradicts itself.
    """
    found = find_weights(path, offline=offline)
    read_card(found.path)  # a wrong file is told before torch takes its seconds
    machine.watch()
    import torch

    from patchword.inference.model import LoadReport, Model
    from patchword.model.vit import ViT

    card, tensors = read_model(found.path)
    notes = []
    narrow = [k for k, t in tensors.items() if t.is_floating_point() and t.dtype != torch.float32]
    if narrow:
        notes.append(f"{len(narrow)} tensors of {tensors[narrow[0]].dtype} were widened to float32")
        tensors.update({k: tensors[k].float() for k in narrow})
    with torch.device("meta"):
        vit = ViT(card.config)
    fill(vit, tensors, str(found.path))
    report = LoadReport(
        path=found.path,
        why=found.why,
        tensors=len(tensors),
        parameters=sum(t.numel() for t in vit.parameters()),
        notes=tuple(notes),
    )
    return Model(vit, card, report).to(_device(device))


def _device(asked: "str | torch.device | None") -> "torch.device":
    import torch

    from patchword.errors import SettingsError

    if asked is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(f"device {str(asked)!r} cannot be used: {reason}", "use --device cpu") from error
    return device
