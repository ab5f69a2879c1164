"""Refuse unsupported timm architectures by name, because their tensors can look like a plain ViT's."""

from patchword.errors import near_text
from patchword.formats.checkpoint import Checkpoint
from patchword.formats.layouts.refused import Refused
from patchword.formats.layouts.timm_facts import named_architecture, table
from patchword.formats.naming import by_tensors


def refuse_timm(checkpoint: Checkpoint) -> None:
    """Raises: Refused for a timm architecture that patchword does not support, or for an unknown one."""
    found = named_architecture(checkpoint)
    if found is None:
        return
    name, evidence = found
    known = table()["architectures"]
    if name in known or name in table()["renamed"]:
        return
    module = next((module for module, names in table()["others"].items() if name in names), None)
    if module is not None and (evidence != "the file name" or by_tensors(checkpoint) is None):
        raise Refused(
            f"{checkpoint.name}: {evidence} specifies timm's {name} (timm/models/{module}.py), which patchword does not support",
            "load it with timm",
        )
    if evidence == "config.json":
        raise Refused(
            f"{checkpoint.name}: config.json specifies the architecture {name!r}, which {table()['source']} does not have"
            f"{near_text(name, known)}",
            "if it matches one of timm's ViTs, put that architecture's name into config.json; "
            "otherwise load it with the program that wrote it",
        )
