"""Tensors that a timm model must have, by its class and arguments. If one is missing, the file is incomplete.

Taken from the constructors of timm 1.0.31. If the architecture is unknown, only the tensors count.
"""

from patchword.formats.layouts.timm_facts import TimmArchitecture

_REGISTERS = {"VisionTransformer": "reg_tokens", "NaFlexVit": "reg_tokens", "Eva": "num_reg_tokens"}


def positions_added(known: TimmArchitecture) -> bool:
    """Whether a position table is added to the patches."""
    match known.kind:
        case "VisionTransformerDistilled":
            return True
        case "VisionTransformer" | "NaFlexVit":
            if "pos_embed" in known.declared and not known.declared["pos_embed"]:
                return False
            return known.argument("pos_embed")[0] in (None, "learn", "learned")
        case "Eva" | "Beit":
            return known.argument("use_abs_pos_emb")[0] is not False
    return False


def class_token(known: TimmArchitecture) -> bool:
    if known.kind in ("Beit", "VisionTransformerDistilled"):
        return True
    if known.kind in ("VisionTransformer", "Eva"):
        return known.argument("class_token")[0] is not False
    return known.flag("class_token")


def registers(known: TimmArchitecture) -> int:
    name = _REGISTERS.get(known.kind)
    return (known.integer(name)[0] or 0) if name and known.argument(name)[0] else 0


def last_norm(known: TimmArchitecture) -> bool:
    return known.kind in ("VisionTransformer", "NaFlexVit") and known.argument("final_norm")[0] is not False


def relative_tables(known: TimmArchitecture) -> tuple[str, ...]:
    """The first tensor of each kind of relative positions in the model."""
    if known.kind != "Beit":
        return ()
    tables = {
        "use_shared_rel_pos_bias": "rel_pos_bias.relative_position_bias_table",
        "use_rel_pos_bias": "blocks.0.attn.relative_position_bias_table",
    }
    return tuple(table for argument, table in tables.items() if known.flag(argument))
