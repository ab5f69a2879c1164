"""A small model with every part that the default recipe lacks.

Class token, registers, learned positions, drop path and dropout: weight-decay groups, torch's own
random state and `eval()` can only be tested on a model that has them.
"""

from typing import Any

from patchword.model.config import BlockConfig, TokensConfig, ViTConfig
from patchword.model.kinds import Learned
from support.vit_configs import tiny

DROP_PATH, DROPOUT, REGISTERS = 0.2, 0.1, 2

# 16 x 24 pixels, five classes.
RICH: ViTConfig = tiny(
    tokens=TokensConfig(num_registers=REGISTERS),
    positions=Learned(covers="all"),
    block=BlockConfig(drop_path=DROP_PATH, dropout=DROPOUT),
)

# The same parts for `pw.train(data, settings=...)` or `-o`, whatever the data.
RICH_SETTINGS: dict[str, Any] = {
    "model.tokens.class_token": True,
    "model.tokens.num_registers": REGISTERS,
    "model.positions": {"kind": "learned", "covers": "all"},
    "model.block.drop_path": DROP_PATH,
    "model.block.dropout": DROPOUT,
    "model.depth": 2,
    "model.dim": 32,
    "model.attention.num_heads": 1,
    "run.batch_size": 8,
    "run.threads": 1,
    "run.precision": "float32",
}
