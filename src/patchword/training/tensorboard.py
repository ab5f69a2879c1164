"""Write the records of metrics.jsonl for TensorBoard as well. An extra: imported only if `run.tensorboard` is set."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from patchword.errors import SettingsError

FOLDER = "tensorboard"
# Of a record, these say where it belongs and are not curves.
_PLACES = ("kind", "epoch", "epochs", "step")


def require_tensorboard() -> None:
    """Raises: SettingsError if the package is not installed."""
    if find_spec("tensorboard") is None:
        raise SettingsError(
            "run.tensorboard is set, but the package tensorboard is not installed",
            'pip install "patchword[tensorboard]", or remove the setting',
        )


class TensorBoard:
    """Curves of every number in the records, by step, in the folder `tensorboard/` of the run.

    Records of one kind share a group of curves: `step/loss`, `epoch/val_top1`. Later records of a step replace the
    earlier ones of an interrupted run.
    Raises: SettingsError if the package tensorboard is not installed.
    """

    def __init__(self, run_folder: Path, first_step: int = 0) -> None:
        """first_step: of this process; TensorBoard drops what an interrupted run wrote from there on."""
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run_folder / FOLDER), purge_step=first_step or None)

    def write(self, record: Mapping[str, Any]) -> None:
        """Add every finite number of a record to its curve. Records without a step are not curves."""
        step, kind = record.get("step"), record.get("kind", "run")
        if not isinstance(step, int):
            return
        for name, value in record.items():
            if name not in _PLACES and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{kind}/{name}", value, step)
        if kind == "epoch":
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()
