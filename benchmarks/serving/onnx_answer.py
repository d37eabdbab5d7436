"""What every service compared here does with a request: the same Pillow, the same onnxruntime.

Runs in the competitors' environments, so it imports nothing of Lockstep. The decoder may shrink a
photo while it decodes, as Lockstep's reader lets it, so that servers are compared and not readers.
"""

import io
import os
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

SIDE = 224
TOP = 5


def open_session(path: str) -> onnxruntime.InferenceSession:
    """One thread within one prediction, as every server here is told."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def read_photo(content: bytes, *, shrink: bool = True) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The middle square of a photo as uint8 [224, 224, 3].

    Args:
        content: an encoded image.
        shrink: let the JPEG decoder shrink it by 2, 4 or 8, to no less than twice 224.
    """
    with Image.open(io.BytesIO(content)) as image:
        if shrink:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
        pixels = image.convert("RGB")
    side = min(pixels.size)
    left, top = (pixels.width - side) / 2, (pixels.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(pixels.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box))


class Answer:
    """The model of the environment variable MODEL, and the two things it is asked."""

    def __init__(self) -> None:
        self._session = open_session(os.environ["MODEL"])

    def tensor(self, content: bytes) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Probabilities [1, 10] of one raw uint8 image of 28x28x1."""
        image = np.frombuffer(content, np.uint8).reshape(1, 28, 28, 1)
        return self._session.run(None, {"image": image})[0]  # type: ignore[no-any-return]

    def photo(self, content: bytes) -> list[tuple[int, float]]:
        """The five best classes of an encoded photo, with their probabilities."""
        (row,) = self._session.run(None, {"image": read_photo(content)[None]})[0]
        best = np.argsort(row)[: -TOP - 1 : -1]
        return [(int(index), float(row[index])) for index in best]
