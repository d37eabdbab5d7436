"""Which models and versions lie in the places that are named, and which of them are wanted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from serve.http.catalogue import Policy, RepositoryError, catalogue, read_policy

WriteBundle = Callable[..., Path]


# What the command line names.


def test_a_file_has_the_name_of_its_stem(bundle: Path) -> None:
    assert catalogue([str(bundle)]) == {"letters": {1: bundle}}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("runs/shoes/model.onnx", "shoes"),
        ("runs/shoes/model.int8.onnx", "shoes.int8"),
        ("runs/shoes/modelling.onnx", "modelling"),
        ("runs/shoes/my.model.onnx", "my.model"),
    ],
)
def test_a_file_called_model_has_the_name_of_its_folder(
    tmp_path: Path, bundle: Path, file: str, name: str
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(bundle.read_bytes())
    assert catalogue([str(path)]) == {name: {1: path}}


def test_a_relative_path_has_the_name_of_the_folder_it_lies_in(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shoes").mkdir()
    (tmp_path / "shoes" / "model.onnx").write_bytes(bundle.read_bytes())
    monkeypatch.chdir(tmp_path / "shoes")
    assert catalogue(["model.onnx"]) == {"shoes": {1: Path("model.onnx")}}


def test_a_run_directory_is_its_bundle(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "shoes").mkdir()
    (tmp_path / "shoes" / "model.onnx").write_bytes(bundle.read_bytes())
    (tmp_path / "shoes" / "config.yaml").write_text("{}", "utf-8")
    assert catalogue([str(tmp_path / "shoes")]) == {"shoes": {1: tmp_path / "shoes" / "model.onnx"}}


def test_a_name_can_be_given(bundle: Path, tmp_path: Path) -> None:
    assert catalogue([f"shoes={bundle}"]) == {"shoes": {1: bundle}}
    (tmp_path / "model.onnx").write_bytes(bundle.read_bytes())
    assert catalogue([f"boots={tmp_path}"]) == {"boots": {1: tmp_path / "model.onnx"}}


def test_an_equals_sign_in_a_path_gives_no_name(tmp_path: Path, bundle: Path) -> None:
    path = tmp_path / "lr=0.1" / "letters.onnx"
    path.parent.mkdir()
    path.write_bytes(bundle.read_bytes())
    assert catalogue([str(path)]) == {"letters": {1: path}}


def test_a_folder_holds_models_with_numbered_versions(tmp_path: Path, bundle: Path) -> None:
    for place in ("a/1", "a/12", "b/3", "b/0", "b/-1", "b/x", "b/1.5", "b/²", "c/old"):
        path = tmp_path / place / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(bundle.read_bytes())
    (tmp_path / "a" / "7").mkdir()  # without a model in it
    found = catalogue([str(tmp_path)])
    assert {name: sorted(files) for name, files in found.items()} == {"a": [1, 12], "b": [3]}
    assert found["a"][12] == tmp_path / "a" / "12" / "model.onnx"


def test_folders_and_files_together(folder: Path, bundle: Path) -> None:
    found = catalogue([str(folder), f"shoes={bundle}"])
    assert list(found) == ["letters", "shoes"]


@pytest.mark.parametrize("second", ["{bundle}", "letters={other}", "{folder}"])
def test_two_models_of_one_name_are_refused(
    folder: Path, bundle: Path, tmp_path: Path, second: str
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(bundle.read_bytes())
    source = second.format(bundle=bundle, other=other, folder=folder)
    with pytest.raises(RepositoryError, match=r"two models are called letters; give one as NAME="):
        catalogue([str(bundle), source])


def test_a_folder_of_models_takes_no_name(folder: Path) -> None:
    with pytest.raises(RepositoryError, match="leave out shoes="):
        catalogue([f"shoes={folder}"])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"expected NAME/VERSION/model\.onnx in this folder"):
        catalogue([str(tmp_path)])


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"nothing\.onnx.*no such file"):
        catalogue([str(tmp_path / "nothing.onnx")])


# Which versions.


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("latest", Policy(newest=1)),
        ("latest:1", Policy(newest=1)),
        ("latest:3", Policy(newest=3)),
        ("all", Policy(newest=None)),
        ("4", Policy(newest=None, only=(4,))),
        ("1,3", Policy(newest=None, only=(1, 3))),
    ],
)
def test_policies_are_read(text: str, policy: Policy) -> None:
    assert read_policy(text) == policy


@pytest.mark.parametrize("text", ["", "newest", "latest:", "latest:0", "latest:x", "1,", "0", "-1"])
def test_no_policies(text: str) -> None:
    with pytest.raises(ValueError):
        read_policy(text)
