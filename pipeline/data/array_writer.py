"""An `.npy` file that grows row by row, so that a data set need not fit into memory."""

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


class ArrayWriter:
    """Append uint8 rows of one shape; the header's row count is set on leaving the `with` block."""

    def __init__(self, path: Path, row_shape: tuple[int, ...]) -> None:
        self._row_shape = row_shape
        self._rows = 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed by __exit__)
        self._write_header()

    def __enter__(self) -> "ArrayWriter":
        return self

    def append(self, row: NDArray[np.uint8]) -> None:
        """Write one row of the shape given at the start."""
        if row.dtype != np.uint8 or row.shape != self._row_shape:
            raise ValueError(f"expected uint8 {self._row_shape}, got {row.dtype} {row.shape}")
        self._file.write(row.tobytes())
        self._rows += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                # NumPy pads headers so that the first dimension can grow in place.
                self._file.seek(0)
                self._write_header()

    def _write_header(self) -> None:
        npy.write_array_header_1_0(
            self._file,
            {"descr": "|u1", "fortran_order": False, "shape": (self._rows, *self._row_shape)},
        )
