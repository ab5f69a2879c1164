"""Architectures of timm that are not read, refused by name: their tensors can look like a plain ViT's."""

from patchword.checkpoints.checkpoint import Checkpoint
from patchword.checkpoints.layouts.refused import Refused
from patchword.checkpoints.layouts.timm_facts import named_architecture, table
from patchword.checkpoints.naming import by_tensors
from patchword.errors import near_text


def refuse_timm(checkpoint: Checkpoint) -> None:
    """Raises: Refused for an architecture that timm has and patchword does not read, or that nobody knows."""
    found = named_architecture(checkpoint)
    if found is None:
        return
    name, evidence = found
    known = table()["architectures"]
    if name in known or name in table()["renamed"]:
        return
    module = next((module for module, names in table()["others"].items() if name in names), None)
    if module is not None and (evidence != "the file's name" or by_tensors(checkpoint) is None):
        raise Refused(
            f"{checkpoint.name}: {evidence} names timm's {name} (timm/models/{module}.py), not a ViT that patchword reads",
            "use timm for it",
        )
    if evidence == "config.json":
        raise Refused(
            f"{checkpoint.name}: config.json names the architecture {name!r}, which {table()['source']} does not have"
            f"{near_text(name, known)}",
            "if it is built as one of timm's ViTs, write that architecture's name into config.json; "
            "else use the program that wrote it",
        )
