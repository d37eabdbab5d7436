"""Files that are no Keras 3 model: one line that says what they are and what to do."""

import json
import zipfile
from pathlib import Path

import h5py
import pytest

from export.foreign.formats import FormatError, expect_keras_3


def refused(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        expect_keras_3(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def keras_archive(path: Path, version: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
    return path


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "m.keras", "m"])
def test_a_whole_model_as_hdf5(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / name, "w") as file:
        file.attrs["model_config"] = "{}"
    said = refused(tmp_path / name)
    assert "a whole model as HDF5" in said and "keras.saving.load_model(" in said
    assert ("renamed to .h5" in said) == (Path(name).suffix not in (".h5", ".hdf5"))


def test_weights_without_a_model(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers"] = 1
    said = refused(tmp_path / "m.weights.h5")
    assert "weights alone" in said and "model.load_weights(" in said


@pytest.mark.parametrize("version", ["2.15.0", "2.12.0-rc1"])
def test_a_keras_2_file(version: str, tmp_path: Path) -> None:
    said = refused(keras_archive(tmp_path / "m.keras", version))
    assert f"a .keras file of Keras {version}" in said and "tf_keras" in said


def test_a_keras_3_file_passes_and_another_name_is_explained(tmp_path: Path) -> None:
    expect_keras_3(keras_archive(tmp_path / "m.keras", "3.15.1"))
    assert "rename it to" in refused(keras_archive(tmp_path / "m.zip", "3.15.1"))


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["saved_model.pb"], "a TensorFlow SavedModel folder"),
        (["model.index", "model.data-00000-of-00001"], "a folder of TensorFlow checkpoints"),
        (["config.json", "metadata.json"], "an unpacked .keras file"),
        ([], "a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_folders(files: list[str], kind: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    assert f"got {kind}: " in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("m.tflite", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("m.keras", b"\x1c\0\0\0TFL3", "a TensorFlow Lite model"),
        ("m.onnx", b"\x08\x08", "an ONNX model"),
        ("m.pb", b"\n", "a TensorFlow graph"),
        ("m.pt", b"\x80\x02", "a PyTorch file"),
        ("m.ckpt.data-00000-of-00001", b"0", "a TensorFlow checkpoint"),
        ("m.json", b"{}", "JSON, which holds no weights"),
        ("m.xyz", b"hello", "a file of another kind"),
    ],
)
def test_files(name: str, content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"got {kind}: " in refused(tmp_path / name)


def test_a_pytorch_archive_is_told_by_its_content(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert "got a PyTorch file: " in refused(tmp_path / "m.keras")


def test_no_file(tmp_path: Path) -> None:
    assert "no such model" in refused(tmp_path / "m.keras")
