"""One file with the state of a training: what goes in comes out, or is known to be damaged."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.training import state_file
from pipeline.training.state_file import State, StateError, StateFiles, read_state


def state(number: int = 1) -> State:
    generator = np.random.default_rng(number)
    arrays: dict[str, Any] = {
        "model/00000": generator.normal(size=(3, 3, 1, 8)).astype(np.float32),
        "model/00001": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "model/00002": np.array([2**32 - 1, number], np.uint32),
        "optimizer/00000": np.array(2**60 + number, np.int64),
        "optimizer/00001": np.empty((0, 4), np.float32),
        "metrics/00000": np.array([True, False]),
        "half": generator.normal(size=5).astype(np.float16),
    }
    return State(arrays, {"number": number, "rate": 0.1 + 0.2, "text": "größe", "none": None})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_equal(one: State, other: State) -> None:
    assert one.document == other.document
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert other.arrays[name].dtype == array.dtype
        assert other.arrays[name].shape == array.shape
        assert other.arrays[name].tobytes() == array.tobytes()


def test_every_bit_comes_back(tmp_path: Path) -> None:
    files = StateFiles(tmp_path / "checkpoints")
    assert files.read() == (None, [])
    files.write(state())
    found, problems = files.read()
    assert found is not None
    assert_equal(found, state())
    assert problems == []
    assert names(tmp_path / "checkpoints") == ["state.npz"]


def test_numpy_and_any_zip_program_can_open_it(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.write(state())
    with np.load(files.newest) as arrays:
        np.testing.assert_array_equal(arrays["model/00000"], state().arrays["model/00000"])
        assert json.loads(arrays["state.json"])["number"] == 1


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    for number in (1, 2, 3):
        files.write(state(number))
    assert read_state(files.newest).document["number"] == 3
    assert read_state(files.previous).document["number"] == 2
    assert names(tmp_path) == ["previous.npz", "state.npz"]


def damages(size: int) -> dict[str, Any]:
    positions = [*range(0, size, size // 150), size - 65, size - 64, size - 1]
    flips = {
        f"bit {position % 8} of byte {position}": lambda content, position=position: (
            content[:position]
            + bytes([content[position] ^ 1 << position % 8])
            + content[position + 1 :]
        )
        for position in positions
    }
    cuts = {
        f"cut to {length}": lambda content, length=length: content[:length]
        for length in (0, 1, 63, 64, 65, size // 2, size - 64, size - 1)
    }
    return {**flips, **cuts, "a byte more": lambda content: content + b"0"}


def test_any_damage_is_seen_and_the_one_before_is_used(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.write(state(1))
    files.write(state(2))
    content = files.newest.read_bytes()
    for name, damage in damages(len(content)).items():
        files.newest.write_bytes(damage(content))
        found, problems = files.read()
        assert found is not None, name
        assert found.document["number"] == 1, name
        assert problems == [f"{files.newest}: damaged: it is not what was written"], name


def test_a_whole_file_of_something_else_is_no_state(tmp_path: Path) -> None:
    import hashlib

    for content in (b"", b"PK\3\4" + bytes(100), b"hello" * 50):
        digest = hashlib.sha256(content).hexdigest().encode()
        (tmp_path / "state.npz").write_bytes(content + digest)
        with pytest.raises(StateError, match="expected the state of a training"):
            read_state(tmp_path / "state.npz")


def test_nothing_whole_is_an_error_that_names_both(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    for path in (files.newest, files.previous):
        path.write_bytes(b"")
    with pytest.raises(StateError, match=r"state\.npz: damaged.*previous\.npz: damaged"):
        files.read()
    files.forget()
    assert files.read() == (None, [])


def test_a_kill_between_the_renames_leaves_the_one_before(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.write(state(1))
    files.newest.replace(files.previous)
    (tmp_path / ".partial-state.npz").write_bytes(b"half of it")
    found, problems = files.read()
    assert found is not None
    assert found.document["number"] == 1
    assert problems == []
    files.write(state(2))
    assert read_state(files.newest).document["number"] == 2


def test_arrays_of_objects_are_never_written(tmp_path: Path) -> None:
    files = StateFiles(tmp_path)
    files.write(state(1))
    with pytest.raises(ValueError, match="allow_pickle"):
        files.write(State({"model/0": np.array([object()])}, {}))
    assert read_state(files.newest).document["number"] == 1


def no_space(path: Path, content: bytes) -> int:
    with open(path, "wb") as stream:
        stream.write(content[:100])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def zeros(path: Path, content: bytes) -> int:
    with open(path, "wb") as stream:
        return stream.write(bytes(len(content)))


@pytest.mark.parametrize(
    ("write_bytes", "message"), [(no_space, "No space left"), (zeros, "did not keep")]
)
def test_a_disk_that_fails_leaves_the_last_good_one(
    write_bytes: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StateFiles(tmp_path)
    files.write(state(1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match=message) as caught:
        patch.setattr(Path, "write_bytes", write_bytes)
        files.write(state(2))
    assert caught.value.filename == str(files.newest)
    assert names(tmp_path) == ["state.npz"]
    assert read_state(files.newest).document["number"] == 1


def test_a_file_of_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_file, "CHUNK", 100)
    files = StateFiles(tmp_path)
    files.write(state())
    assert_equal(read_state(files.newest), state())
