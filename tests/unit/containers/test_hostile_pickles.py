"""A pickle that wants to run something runs nothing, whatever it is made of; none is a way to a crash."""

import io
import os
import pickle
import resource
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.containers import pickle_stubs, torch_tree
from patchword.containers.stored import open_stored
from patchword.errors import CheckpointError

MAGIC = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *given: Any, state: Any = None) -> None:
        self.parts = (function, given) if state is None else (function, given, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts

    def __call__(self) -> None:
        """Nothing: what is called must look as if it could be."""


class SetsState:
    def __init__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state

    def __setstate__(self, state: Any) -> None:
        state["canary"].touch()


def in_zip(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(64))


def in_old_file(path: Path, content: bytes) -> None:
    path.write_bytes(b"".join([*MAGIC, content, pickle.dumps([], 2)]))


def attacks(canary: Path) -> dict[str, bytes]:
    touch, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    inner = pickle.dumps(Calls(os.system, touch))
    command = b"U" + bytes([len(touch)]) + touch.encode()
    text = b"U" + bytes([len(code)]) + code.encode()
    return {
        "system": pickle.dumps(Calls(os.system, touch)),
        "eval": pickle.dumps(Calls(eval, code)),
        "exec": pickle.dumps(Calls(exec, code)),
        "import": pickle.dumps(Calls(__import__, "antigravity")),
        "loads": pickle.dumps(Calls(pickle.loads, inner)),
        "torch_load": pickle.dumps(Calls(torch.load, str(canary))),
        "call_of_a_call": pickle.dumps(Calls(Calls(getattr, Calls(__import__, "os"), "system"), touch)),
        "map": pickle.dumps(Calls(list, Calls(map, os.system, [touch]))),
        "setstate": pickle.dumps(SetsState({"canary": canary})),
        "open": pickle.dumps(Calls(open, str(canary), "w")),
        "parameter": pickle.dumps(Calls(torch._utils._rebuild_parameter, Calls(os.system, touch), True, {})),
        "from_type": pickle.dumps(Calls(torch._tensor._rebuild_from_type_v2, os.system, str, (touch,), None)),
        "dotted": b"\x80\x04\x8c\x08builtins\x8c\x0aeval.__call__\x93" + text + b"\x85R.",
        "global": b"cposix\nsystem\n(" + command + b"tR.",
        "inst": b"(" + command + b"iposix\nsystem\n.",
        "obj": b"(cposix\nsystem\n" + command + b"o.",
        "newobj": b"\x80\x02cposix\nsystem\n" + command + b"\x85\x81.",
        "newobj_ex": b"\x80\x04cposix\nsystem\n" + command + b"\x85}\x92.",
        "build_a_class": b"\x80\x02cbuiltins\nobject\n}U\x08__call__cposix\nsystem\nsb.",
        "build_a_maker": b"\x80\x02ccollections\nOrderedDict\n}U\x05_makecposix\nsystem\nsbU\x01x\x85R.",
        "build_slots": b"\x80\x02ccollections\nOrderedDict\nN}U\x05_makecposix\nsystem\ns\x86b.",
        "build_a_dtype": b"\x80\x02ctorch\nfloat32\n]U\x03F64ab.",
        "extension": b"\x80\x02\x82\x01.",
        "dunder": b"\x80\x02cbuiltins\n__dict__\n.",
        "our_own": b"\x80\x02cpatchword.containers.pickle_stubs\nKNOWN\n}b.",
        "typed": b"\x80\x02cbuiltins\ntype\nU\x01X)}U\x0a__reduce__cposix\nsystem\ns\x87R)R.",
        "reconstructor": b"ccopy_reg\n_reconstructor\n(cposix\nsystem\ncbuiltins\nobject\nNtR.",
        "codecs": b"c_codecs\nencode\n(" + command + b"U\x03hex" + b"tR.",
        "persistent": b"\x80\x02(U\x06modulecposix\nsystem\nU\x01xU\x01ytQ" + command + b"\x85R.",
    }


@pytest.mark.parametrize("pack", [in_zip, in_old_file])
def test_nothing_is_run(tmp_path: Path, pack: Callable[[Path, bytes], None]) -> None:
    canary, path = tmp_path / "canary", tmp_path / "m.pth"
    known = dict(pickle_stubs.KNOWN)
    for name, content in attacks(canary).items():
        for wrapped in (content, b"\x80\x02}U\x01w" + content[:-1] + b"s."):
            pack(path, wrapped)
            try:
                stored = open_stored(path)
            except CheckpointError as error:
                assert str(path) in error.message and "weights_only" not in str(error), name
            else:
                assert not any(callable(value) for value in stored.tree.values()), name
            assert not canary.exists(), name
    assert known == dict(pickle_stubs.KNOWN) and "antigravity" not in sys.modules


def test_the_attacks_do_work_elsewhere(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    worked = set()
    for name in ("system", "eval", "exec", "loads", "setstate", "global", "obj", "inst", "call_of_a_call"):
        pickle.loads(attacks(canary)[name])
        if canary.exists():
            worked.add(name)
            canary.unlink()
    assert len(worked) == 9


def laughs(step: bytes) -> bytes:
    """Thirty levels, each ten times the one below: a tree of 10**30 parts in some hundred bytes."""
    return (
        b"\x80\x02]U\x01xa"
        + b"".join(
            b"q" + bytes([level]) + b"0" + step.replace(b"@", b"h" + bytes([level])) for level in range(30)
        )
        + b"."
    )


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


BOMBS = {
    "lists": laughs(b"(" + b"@" * 10 + b"l"),
    "dicts": laughs(b"(" + b"".join(b"U\x01" + bytes([65 + i]) + b"@" for i in range(10)) + b"d"),
    "tuple_as_key": b"\x80\x02" + b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"0}h\x00Ns.",
    "tuple_in_a_set": b"\x80\x04" + b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"0\x8f(h\x00\x90.",
    "tuple_in_a_frozenset": b"\x80\x04" + b")q\x00" + b"0h\x00h\x00\x86q\x00" * 60 + b"0(h\x00\x91.",
    "tuple_in_a_dict_call": b"\x80\x02"
    + b")q\x00"
    + b"0h\x00h\x00\x86q\x00" * 60
    + b"0ccollections\nOrderedDict\n(h\x00N\x86l\x85R.",
    "tuple_as_a_path": b"\x80\x02"
    + b")q\x00"
    + b"0h\x00h\x00\x86q\x00" * 60
    + b"0cpathlib\nPosixPath\nh\x00\x85R.",
    "tuple_as_a_storage": b"\x80\x02"
    + b")q\x00"
    + b"0h\x00h\x00\x86q\x00" * 60
    + b"0(U\x07storagectorch\nFloatStorage\nh\x00U\x03cpuK\x01tQ.",
    "deep_lists": nested(200_000),
    "itself": b"\x80\x02]q\x00h\x00h\x00h\x00\x87a.",
    "itself_in_a_dict": b"\x80\x02}q\x00(U\x01ah\x00U\x01bh\x00u.",
    "long_memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "long_text": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"x.",
    "long_bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.",
    "long_bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"x.",
    "long_frame": b"\x80\x04\x95" + struct.pack("<Q", 2**45) + b"N.",
    "long_number": b"\x80\x02}\x8b" + struct.pack("<i", 60_000) + b"\x7f" * 60_000 + b"Ns.",
    "long_number_as_value": b"\x80\x02}U\x01a\x8b" + struct.pack("<i", 60_000) + b"\x7f" * 60_000 + b"s.",
    "negative_length": b"\x80\x02\x8b\xff\xff\xff\xff.",
    "long_digits": b"I" + b"9" * 100_000 + b"\n.",
    "no_stop": b"\x80\x02}",
    "no_mark": b"\x80\x02t.",
    "empty": b"",
    "appends_to_text": b"\x80\x02U\x01a(NNe.",
}


def bounded(path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        stored = open_stored(path)
    except CheckpointError as error:
        assert str(path) in error.message
    else:
        assert len(str(stored.tree)) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000  # KiB


@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_an_error_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(torch_tree, "MAX_PARTS", 100_000)
    for pack in (in_zip, in_old_file):
        pack(tmp_path / "m.pth", BOMBS[kind])
        bounded(tmp_path / "m.pth")


def test_a_pickle_that_was_packed_beyond_belief_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * 5_000_000 + b"}.")
    with pytest.raises(CheckpointError, match="is larger than"):
        open_stored(tmp_path / "m.pth")


class Tensor:
    """Pickles as torch's description of a tensor, with any numbers."""

    def __init__(self, offset: Any, shape: Any, strides: Any, key: str = "0") -> None:
        self.numbers, self.key = (offset, shape, strides), key

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (Persistent(self.key), *self.numbers, False, {})


class Persistent:
    def __init__(self, key: str) -> None:
        self.key = key


class TorchPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, Persistent):
            return ("storage", torch.FloatStorage, value.key, "cpu", 16)
        return None


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    TorchPickler(buffer, 2).dump(value)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "numbers",
    [
        (0, (2**60,), (1,)),
        (0, (2**31, 2**31, 0), (1, 1, 1)),
        (0, (2**40,), (0,)),
        (0, (17,), (1,)),
        (16, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (2, 2), (16, 1)),
        (0, (1,) * 65, (1,) * 65),
        (0, [2], [1]),
        (0, ("2",), (1,)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (2**70, (1,), (1,)),
        (None, None, None),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_an_error(tmp_path: Path, numbers: Any) -> None:
    in_zip(tmp_path / "m.pth", pickled({"w": Tensor(*numbers)}))
    with pytest.raises(CheckpointError):
        open_stored(tmp_path / "m.pth")


def test_a_tensor_that_fits_is_taken_and_a_missing_storage_named(tmp_path: Path) -> None:
    in_zip(tmp_path / "m.pth", pickled({"w": Tensor(1, (3, 5), (5, 1))}))
    assert open_stored(tmp_path / "m.pth").tree["w"].shape == (3, 5)
    in_zip(tmp_path / "m.pth", pickled({"w": Tensor(0, (2,), (1,), key="9")}))
    with pytest.raises(CheckpointError, match="the storage of 'w' is missing"):
        open_stored(tmp_path / "m.pth")


def test_what_was_checked_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    made = pickled(Tensor(1, (3, 5), (5, 1)))[:-1]
    for state in (b"}U\x06offsetJ\x00\x00\x00\x80s", b"N}U\x06offsetK\x63s\x86", b"]K\x01a", b"(NNNNNt"):
        in_zip(tmp_path / "m.pth", made + state + b"b.")
        with pytest.raises(CheckpointError, match="changes an object after creating it"):
            open_stored(tmp_path / "m.pth")
