"""A prepared data set that is damaged is one short line."""

import json
from pathlib import Path

import pytest

from export.prepared_data import PreparedData
from serve.command import LockstepError


def refusal(data: Path) -> str:
    with pytest.raises(LockstepError) as caught:
        PreparedData.open(data)
    return str(caught.value)


def test_a_manifest_of_another_release_names_the_first_difference(run_copy: Path) -> None:
    path = run_copy / "data" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for file in manifest["proof_files"]:
        del file["sha256"]
    path.write_text(json.dumps(manifest))
    message = refusal(run_copy / "data")
    assert "or one of another release: proof_files.0.sha256: Field required; " in message
    assert len(message) < 300


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_manifest_that_is_none(content: str, run_copy: Path) -> None:
    (run_copy / "data" / "manifest.json").write_text(content)
    assert "damaged manifest.json" in refusal(run_copy / "data")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("kept", [0, 20, 300])
def test_arrays_that_are_cut_off(name: str, kept: int, run_copy: Path) -> None:
    path = run_copy / "data" / name
    path.write_bytes(path.read_bytes()[:kept])
    assert "damaged data set" in refusal(run_copy / "data")


def test_arrays_of_another_shape(run_copy: Path) -> None:
    path = run_copy / "data" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["image"]["height"] = 9
    path.write_text(json.dumps(manifest))
    assert "expected uint8 images of shape [1797, 9, 8, 1]" in refusal(run_copy / "data")
