"""A run folder belongs to one process at a time, and two runs never share a name."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from patchword.errors import UserError
from patchword.training.runfolder import LOCK, STATE, RunFolder, locked, make_folder

HOLDER = """
import sys, time
from pathlib import Path
from patchword.training.runfolder import RunFolder, locked
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def test_runs_that_begin_at_once_under_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = [f.path.name for f in pool.map(make_folder, [tmp_path / "run"] * 8)]
    assert sorted(folders) == sorted({"run", *(f"run-{n}" for n in range(2, 9))})


def test_a_run_that_is_running_is_not_resumed_and_a_dead_one_is(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"is being trained by process {other.pid} on "), locked(folder):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (folder.path / STATE / LOCK).exists(), "a crash leaves the file"
    with locked(folder), pytest.raises(UserError, match="is being trained"), locked(RunFolder(folder.path)):
        pass
    with locked(folder):
        pass
