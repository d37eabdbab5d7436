"""Which format a model's file is of, told by its content, and how one that is not taken is turned
into a `.keras` file.

Nothing of the file is run, and TensorFlow is not needed.
"""

import json
import zipfile
from pathlib import Path

from serve.command import LockstepError

HDF5 = b"\x89HDF\r\n\x1a\n"
KEEP = "; only for a file that you trust: loading it can run code"
FROM_HDF5 = (
    'python -c "import keras; keras.saving.load_model({name!r}, compile=False).save({new!r})"'
)
TORCH = "export it to ONNX with torch.onnx.export, then serve.batch --labels"
FROM_KERAS_2 = (
    'pip install tf_keras, python -c "import tf_keras; tf_keras.models.load_model({name!r}, '
    'compile=False).save({h5!r})", then ' + FROM_HDF5.replace("{name!r}", "{h5!r}")
)
WEIGHTS = "build the model in Python, then model.load_weights({name!r}) and model.save({new!r})"


class FormatError(LockstepError):
    """A file that is no Keras 3 model."""


def expect_keras_3(path: Path) -> None:
    """Refuse everything but a `.keras` file of Keras 3, in one line that says what it is.

    Raises:
        FormatError: naming the format found and how to convert it.
    """
    if not path.exists():
        raise FormatError(f"{path}: no such model; expected a .keras file")
    found = _folder(path) if path.is_dir() else _file(path)
    if found:
        kind, remedy = found
        new, h5 = path.with_suffix(".keras").name, path.with_suffix(".h5").name
        remedy = remedy.format(name=str(path), new=new, h5=h5)
        raise FormatError(f"{path}: expected a .keras file of Keras 3, got {kind}: {remedy}")
    if path.suffix != ".keras":
        raise FormatError(
            f"{path}: a .keras file under another name: rename it to {path.with_suffix('.keras')}"
        )


def _folder(path: Path) -> tuple[str, str]:
    if (path / "saved_model.pb").is_file():
        return "a TensorFlow SavedModel folder", FROM_KERAS_2 + KEEP
    if (path / "config.json").is_file() and (path / "metadata.json").is_file():
        return "an unpacked .keras file", "zip the content of the folder again"
    if any(path.glob("*.index")):
        return "a folder of TensorFlow checkpoints", WEIGHTS
    return "a folder", "give the model's file"


def _file(path: Path) -> tuple[str, str] | None:
    """What the file is and what to do about it; None for a `.keras` file of Keras 3."""
    with open(path, "rb") as stream:
        head = stream.read(16)
    if head.startswith(HDF5):
        return _hdf5(path)
    if head.startswith(b"PK"):
        return _zip(path)
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model", "give the Keras model that it was made from"
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "an ONNX model", "use it as it is: python -m serve.batch {name} FOLDER --labels FILE"
    if suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"):
        return (
            "a PyTorch file",
            TORCH,
        )
    if suffix == ".pb":
        return "a TensorFlow graph", "give the Keras model that it was made from"
    if suffix == ".index" or ".data-0000" in path.name:
        return "a TensorFlow checkpoint", WEIGHTS
    if suffix == ".json":
        return "JSON, which holds no weights", "give the file that model.save('model.keras') writes"
    if suffix == ".keras":
        return None  # damaged: Keras says how
    return "a file of another kind", "save the model again with model.save('model.keras')"


def _hdf5(path: Path) -> tuple[str, str]:
    """With or without the model itself, which is in an attribute of the file's root."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    except (OSError, RuntimeError, KeyError):
        return "a damaged HDF5 file", "save the model again with model.save('model.keras')"
    if whole:
        kind = "a whole model as HDF5"
        if path.suffix not in (".h5", ".hdf5"):
            kind += ", which must first be renamed to .h5"
        return kind, FROM_HDF5 + KEEP
    return "HDF5 with weights alone, without the model", WEIGHTS


def _zip(path: Path) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                return "a PyTorch file", TORCH
            if "config.json" not in names:
                return None if path.suffix == ".keras" else _ARCHIVE
            metadata = json.loads(archive.read("metadata.json"))
            version = str(metadata["keras_version"])
    except Exception:  # noqa: BLE001 (a damaged archive raises anything; loading it says how)
        return None
    if version.startswith(("1.", "2.")):
        return f"a .keras file of Keras {version}", FROM_KERAS_2 + KEEP
    return None


_ARCHIVE = ("a zip archive", "unpack it and give the .keras file in it")
