"""Identify formats of other frameworks by their content or the names in their folder. None of them is read."""

from collections.abc import Iterable
from pathlib import Path

_CONVERT = "export the weights from the original program as .safetensors or a PyTorch state dict"
# Bytes at the start of a file.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"GGUF", "a GGUF file (llama.cpp)"),
    (b"lmgg", "a GGML file (llama.cpp)"),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", "an MXNet parameter file"),
    (b"MATLAB ", "a MATLAB file"),
    (b"PAR1", "a Parquet table"),
    (b"ARROW1", "an Arrow table"),
    (b"SQLite format 3", "an SQLite database"),
    (b"ftrt", "a TensorRT engine"),
    (b"ptrt", "a TensorRT engine"),
    (b"model_checkpoint_path:", "the index of a TensorFlow checkpoint"),
    (b"7767517", "an ncnn model"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program or library"),
)
# Bytes 4 to 8.
_AT_FOUR = ((b"TFL3", "a TensorFlow Lite (LiteRT) model"), (b"ET12", "an ExecuTorch program"))
_BY_ENDING: dict[str, str] = {
    ".onnx": "an ONNX model",
    ".tflite": "a TensorFlow Lite (LiteRT) model",
    ".mlmodel": "a Core ML model",
    ".mlpackage": "a Core ML model",
    ".pb": "a TensorFlow graph",
    ".keras": "a Keras model",
    ".h5": "an HDF5 file (Keras writes these)",
    ".hdf5": "an HDF5 file (Keras writes these)",
    ".msgpack": "Flax weights (msgpack)",
    ".pdparams": "PaddlePaddle parameters",
    ".pdiparams": "PaddlePaddle parameters",
    ".pdmodel": "a PaddlePaddle model",
    ".pdopt": "the optimiser state of PaddlePaddle",
    ".gguf": "a GGUF file (llama.cpp)",
    ".ggml": "a GGML file (llama.cpp)",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
    ".trt": "a TensorRT engine",
    ".caffemodel": "a Caffe model",
    ".prototxt": "the description of a Caffe model",
    ".params": "an MXNet parameter file",
    ".param": "an ncnn model",
    ".mnn": "an MNN model",
    ".rknn": "an RKNN model",
    ".pte": "an ExecuTorch program",
    ".weights": "a Darknet weights file",
    ".pkl": "a Python pickle",
    ".joblib": "a joblib pickle (scikit-learn)",
    ".distcp": "a part of a distributed PyTorch checkpoint",
}
# Names in a folder, and what the folder is.
_FOLDERS: tuple[tuple[str, str], ...] = (
    ("saved_model.pb", "a TensorFlow SavedModel"),
    ("*.mlpackage", "a Core ML model"),
    ("Data/com.apple.CoreML", "a Core ML model"),
    ("manifest.ocdbt", "an Orbax checkpoint (JAX)"),
    ("*/manifest.ocdbt", "an Orbax checkpoint (JAX)"),
    ("_CHECKPOINT_METADATA", "an Orbax checkpoint (JAX)"),
    ("_METADATA", "an Orbax checkpoint (JAX)"),
    ("*/_METADATA", "an Orbax checkpoint (JAX)"),
    ("checkpoint/_METADATA", "an Orbax checkpoint (JAX)"),
    ("*.data-00000-of-*", "a TensorFlow checkpoint"),
    ("*.distcp", "a distributed PyTorch checkpoint"),
    ("*/*.distcp", "a distributed PyTorch checkpoint"),
    ("*/*_model_states.pt", "a DeepSpeed checkpoint"),
    ("*_model_states.pt", "a DeepSpeed checkpoint"),
    ("model_index.json", "a diffusers pipeline"),
    ("*.pdiparams", "a PaddlePaddle model"),
    ("*.pdparams", "a PaddlePaddle model"),
    ("*.xml", "an OpenVINO model"),
    ("flax_model.msgpack", "Flax weights (msgpack)"),
    ("tf_model.h5", "Keras weights of transformers (HDF5)"),
    ("*.onnx", "an ONNX model"),
    ("onnx/*.onnx", "an ONNX model"),
    ("*.keras", "a Keras model"),
    ("*.h5", "Keras weights (HDF5)"),
    ("*.gguf", "a GGUF model (llama.cpp)"),
    ("*.msgpack", "Flax weights (msgpack)"),
    ("*.tflite", "a TensorFlow Lite (LiteRT) model"),
    ("*.mlmodel", "a Core ML model"),
)
_STEPS: dict[str, str] = {
    "a distributed PyTorch checkpoint": "join its parts: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pth",
    "a DeepSpeed checkpoint": "join its parts with the zero_to_fp32.py in its folder",
    "a diffusers pipeline": "give the folder of one of its models, if that is a ViT",
}


def other_content(path: Path, head: bytes) -> tuple[str, str] | None:
    """(what, fix) for another framework's file, by its first bytes; None if they are unknown."""
    what = _by_content(path, head) if len(head) > 8 else None
    return (what, _STEPS.get(what, _CONVERT)) if what else None


def other_name(path: Path) -> tuple[str, str] | None:
    """As `other_content`, by the file's name."""
    what = _by_name(path)
    return (what, _STEPS.get(what, _CONVERT)) if what else None


def _by_content(path: Path, head: bytes) -> str | None:
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what
    for signature, what in _AT_FOUR:
        if head[4:8] == signature:
            return what
    if _is_openvino(head):
        return "an OpenVINO model (its description; the weights are in the .bin next to it)"
    if head[:1] == b"\x08" and 0 < head[1] < 0x40 and head[8:9] != b"{":
        return _protobuf(path, head)
    # A msgpack map with text as its first key, as Flax writes.
    if 0x81 <= head[0] <= 0x8F and 0xA1 <= head[1] <= 0xBF and head[2 : 2 + (head[1] & 0x1F)].isascii():
        return (
            "Flax weights (msgpack)"
            if head[2 : 2 + (head[1] & 0x1F)].isalnum() or b"_" in head[2:34]
            else None
        )
    return None


def _is_openvino(head: bytes) -> bool:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith((b"<?xml", b"<net")) and b"<net" in start and b"<html" not in start.lower()


def _protobuf(path: Path, head: bytes) -> str | None:
    """ONNX and Core ML start with a version and one of their fields; a SavedModel with version 1 and a graph."""
    if path.suffix in (".mlmodel", ".pb"):
        return _BY_ENDING[path.suffix]
    if head[1] == 1 and head[2] == 0x12 and path.name.startswith("saved_model"):
        return "a TensorFlow SavedModel"
    return "an ONNX model" if head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42) else None


def _by_name(path: Path) -> str | None:
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        return "the weights of an OpenVINO model (its description is the .xml next to it)"
    if path.suffix == ".index" or ".data-0000" in path.name:
        return "a part of a TensorFlow checkpoint"
    if path.suffix in (".json", ".toml", ".yaml", ".yml", ".txt", ".csv"):
        return None
    return _BY_ENDING.get(path.suffix.lower())


def other_folder(folder: Path) -> tuple[str, str] | None:
    """(what, fix) for another framework's folder; None if it is unknown."""
    for pattern, what in _FOLDERS:
        if (found := _first(folder, pattern)) is not None:
            return f"{what} ({found.relative_to(folder)})", _STEPS.get(what, _CONVERT)
    return None


def _first(folder: Path, pattern: str) -> Path | None:
    try:
        found: Iterable[Path] = sorted(folder.glob(pattern))
        if pattern == "*.xml":
            found = [
                file for file in found if file.with_suffix(".bin").is_file() or _is_openvino(_start(file))
            ]
        return next(iter(found), None)
    except OSError:
        return None


def _start(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(512)


def zip_of_others(names: Iterable[str]) -> str | None:
    """Identify a zip archive by the names in it."""
    there = set(names)
    if "model.weights.h5" in there:
        return "a Keras model"
    if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in there):
        return "a program of torch.export (.pt2)"
    if any(name.endswith("MAR-INF/MANIFEST.json") for name in there):
        return "a TorchServe archive"
    return None
