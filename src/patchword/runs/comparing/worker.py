"""One run of a comparison in a process of its own: `python -m patchword.runs.comparing.worker FOLDER DATA ARM SEED`.

Standard input is a pipe from the process that compares: it closes when that process ends, and the run then stops after its step.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.runs.comparing.plan import read_plan
from patchword.runs.comparing.train import train_one
from patchword.training.progress import Lines


def main(folder: str, data: str, arm: str, seed: str) -> int:
    """Train the run; the last line printed is its error, as JSON."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        plan = read_plan(Path(folder), data)
        train_one(plan, next(a for a in plan.arms if a.folder == arm), int(seed), Lines())
    except PatchwordError as error:
        plain = {"error": type(error).__name__, "message": error.message, "fix": error.fix}
        print(json.dumps(plain), flush=True)
        return error.exit_code
    return 0


def _stop_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock this thread would hold while Python ends
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
