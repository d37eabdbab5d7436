"""The growing `.npy` file: what NumPy reads back, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.array_writer import ArrayWriter


def write_rows(path: Path, rows: np.ndarray) -> None:
    with ArrayWriter(path, rows.shape[1:]) as writer:
        for row in rows:
            writer.append(row)


@pytest.mark.parametrize("mmap_mode", [None, "r"])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 12345])
def test_numpy_reads_back_what_was_appended(tmp_path, count, mmap_mode):
    rows = np.random.default_rng(0).integers(0, 256, (count, 3, 2, 1), dtype=np.uint8)
    write_rows(tmp_path / "rows.npy", rows)
    if count == 0 and mmap_mode:
        mmap_mode = None  # NumPy cannot map an array of no bytes
    read = np.load(tmp_path / "rows.npy", mmap_mode=mmap_mode)
    assert read.dtype == np.uint8
    assert read.shape == (count, 3, 2, 1)
    np.testing.assert_array_equal(read, rows)


def test_the_header_has_the_same_size_for_every_count(tmp_path):
    write_rows(tmp_path / "none.npy", np.zeros((0, 4), np.uint8))
    write_rows(tmp_path / "many.npy", np.zeros((12345, 4), np.uint8))
    empty, full = (tmp_path / name for name in ("none.npy", "many.npy"))
    assert full.stat().st_size - empty.stat().st_size == 12345 * 4


def test_a_row_that_is_not_contiguous_is_written_in_reading_order(tmp_path):
    row = np.arange(6, dtype=np.uint8).reshape(2, 3).T
    write_rows(tmp_path / "rows.npy", row[np.newaxis])
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), [[[0, 3], [1, 4], [2, 5]]])


@pytest.mark.parametrize(
    ("row", "got"),
    [
        (np.zeros((2, 3), np.uint8), r"uint8 \(2, 3\)"),
        (np.zeros((3, 2, 1), np.uint8), r"uint8 \(3, 2, 1\)"),
        (np.zeros((3, 2), np.float32), r"float32 \(3, 2\)"),
        (np.zeros((3, 2), np.int8), r"int8 \(3, 2\)"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path, row, got):
    with (
        pytest.raises(ValueError, match=rf"^expected uint8 \(3, 2\), got {got}$"),
        ArrayWriter(tmp_path / "rows.npy", (3, 2)) as writer,
    ):
        writer.append(row)


def test_a_refused_row_leaves_the_others_as_they_were(tmp_path):
    with ArrayWriter(tmp_path / "rows.npy", (2,)) as writer:
        writer.append(np.array([1, 2], np.uint8))
        with pytest.raises(ValueError, match="expected uint8"):
            writer.append(np.array([3], np.uint8))
        writer.append(np.array([4, 5], np.uint8))
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), [[1, 2], [4, 5]])


def test_after_an_error_the_file_is_closed_and_claims_no_rows(tmp_path):
    with pytest.raises(KeyboardInterrupt), ArrayWriter(tmp_path / "rows.npy", (2,)) as writer:
        writer.append(np.array([1, 2], np.uint8))
        raise KeyboardInterrupt
    assert np.load(tmp_path / "rows.npy").shape == (0, 2)
    with pytest.raises(ValueError, match="closed file"):
        writer.append(np.array([1, 2], np.uint8))
