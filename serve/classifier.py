"""Open a bundle in onnxruntime and predict."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import (
    INPUT,
    METADATA_KEY,
    OUTPUT,
    BundleDocument,
    BundleError,
    bundle_document,
)
from serve.command import LockstepError, printable
from serve.description import Description, ForeignModelError
from serve.foreign import ForeignSession
from serve.multi_label import with_thresholds
from serve.onnx_file import outline, read_file

MOST_FOLDED_BYTES = 2**26


class Classifier:
    """A bundle, ready to answer. Safe to call from several threads.

    The file is read once; what is checked is what is loaded.

    Args:
        path: the ONNX file.
        threads: threads within one prediction; 0 lets onnxruntime take every core.
        description: what a model that is no bundle does not say of itself.
        thresholds: in place of those of a multi-label model: one, or one for each label.

    Attributes:
        document: what the bundle says of itself.

    Raises:
        BundleError: the file is missing, damaged, unsafe or no ONNX model, has no document, or its
            graph and its document disagree.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        description: Description | None = None,
        thresholds: Sequence[float] = (),
    ) -> None:
        self.path = Path(path)
        self.document: BundleDocument
        try:
            self._open(read_file(self.path), threads, description)
            if thresholds:
                self.document = with_thresholds(self.document, thresholds)
        except LockstepError as error:
            raise BundleError(f"{self.path}: {printable(str(error))}") from None

    def _open(self, content: bytes, threads: int, description: Description | None) -> None:
        file = outline(content)
        text = file.metadata.get(METADATA_KEY)
        if description is None:
            self.document = bundle_document(content, file)
        elif text is not None:
            raise BundleError("the bundle says itself what it is: leave out --labels and the like")
        session = _open_session(content, threads)
        self._session: onnxruntime.InferenceSession | ForeignSession = session
        if description is not None:
            try:
                self._session = ForeignSession(session, file, description)
            except runtime_errors() as error:
                raise BundleError(f"onnxruntime cannot run it: {_first(error)}") from None
            self.document = self._session.document

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of a batch.

        Args:
            images: uint8 `[batch, height, width, channels]`, as `read_image` gives them.

        Returns:
            float32 `[batch, classes]`. Each row sums to 1, but for a multi-label model, where each
            number stands for itself.

        Raises:
            ValueError: other images than the bundle takes.
            BundleError: the graph fails while it runs.
        """
        expected = self.document.image.shape
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f"expected uint8 images of shape [batch, {', '.join(map(str, expected))}], "
                f"got {images.dtype} of shape {list(images.shape)}"
            )
        try:
            (probabilities,) = self._session.run([OUTPUT], {INPUT: images})
        except ForeignModelError as error:
            raise BundleError(f"{self.path}: {printable(str(error))}") from None
        except runtime_errors() as error:
            raise BundleError(f"{self.path}: onnxruntime cannot run it: {_first(error)}") from None
        if probabilities.shape != (len(images), len(self.document.class_names)):
            raise BundleError(
                f"{self.path}: expected {len(self.document.class_names)} probabilities for each of "
                f"{len(images)} images, got an answer of shape {list(probabilities.shape)}"
            )
        # A sum is finite only if every number in it is, and costs less than asking each.
        if not math.isfinite(np.add.reduce(probabilities, axis=None)):
            raise BundleError(f"{self.path}: the model answers with what are no finite numbers")
        return probabilities  # type: ignore[no-any-return]


def _open_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, too
    # What was checked is an ONNX file; a second model in another format could hide in it.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Constants that only unfold while the file is opened take no more than this.
    options.add_session_config_entry(
        "optimization.constant_folding_max_output_size_in_bytes", str(MOST_FOLDED_BYTES)
    )
    try:
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except runtime_errors() as error:
        raise BundleError(f"onnxruntime cannot open it: {_first(error)}") from None


def _first(error: Exception) -> str:
    """The first line of what onnxruntime says; the others are about its own source."""
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a bad graph; its exceptions have no base of their own."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
             "NotImplemented", "RuntimeException")  # fmt: skip
    return (UnicodeDecodeError, *(getattr(state, name) for name in names))
