"""`patchword doctor` where something is wrong: it says what, and never breaks itself."""

from importlib import metadata

import pytest
from click.testing import CliRunner

from patchword.cli import doctor

FAULT = "torch cannot be imported: ImportError: libcudart.so.12 [oops]"


def test_without_patchword_installed_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> object:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", none)
    monkeypatch.setattr(doctor, "probe_torch", lambda: ({}, FAULT))
    said = CliRunner().invoke(doctor.doctor, [])
    assert said.exit_code == 2 and "patchword: not installed" in said.output
    assert FAULT in said.output and "-m pip install /" in said.output.splitlines()[-1]
