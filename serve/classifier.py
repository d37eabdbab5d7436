"""Open a bundle in onnxruntime and predict."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve.bundle import INPUT, METADATA_KEY, OUTPUT, BundleDocument, BundleError


class Classifier:
    """A bundle, ready to answer. Safe to call from several threads.

    Args:
        path: the ONNX file.
        threads: threads within one prediction; 0 lets onnxruntime take every core.

    Raises:
        BundleError: the file is missing, is no ONNX model, has no document, or its graph and its
            document disagree.
    """

    def __init__(self, path: str | Path, *, threads: int = 0) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise BundleError(f"{self.path}: no such bundle; expected a path to a model.onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            metadata = self._session.get_modelmeta().custom_metadata_map
        except _runtime_errors() as error:
            first = str(error).splitlines()[0]
            raise BundleError(f"{self.path}: onnxruntime cannot open it: {first}") from None
        text = metadata.get(METADATA_KEY)
        if text is None:
            raise BundleError(
                f"{self.path}: no bundle: its metadata has no entry {METADATA_KEY!r}; "
                "export it with Lockstep"
            )
        try:
            self.document = BundleDocument.from_json(text)
        except BundleError as error:
            raise BundleError(f"{self.path}: {error}") from None
        self._check_signature()

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Class probabilities of a batch.

        Args:
            images: uint8 `[batch, height, width, channels]`, as `read_image` gives them.

        Returns:
            float32 `[batch, classes]`; each row sums to 1.

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
        except _runtime_errors() as error:
            first = str(error).splitlines()[0]
            raise BundleError(f"{self.path}: onnxruntime cannot run it: {first}") from None
        return probabilities  # type: ignore[no-any-return]

    def _check_signature(self) -> None:
        inputs = [(item.name, item.type, item.shape[1:]) for item in self._session.get_inputs()]
        outputs = [(item.name, item.type, item.shape[1:]) for item in self._session.get_outputs()]
        expected_inputs = [(INPUT, "tensor(uint8)", list(self.document.image.shape))]
        expected_outputs = [(OUTPUT, "tensor(float)", [len(self.document.class_names)])]
        if inputs != expected_inputs or outputs != expected_outputs:
            raise BundleError(
                f"{self.path}: the graph contradicts the document: expected "
                f"{expected_inputs} -> {expected_outputs}, got {inputs} -> {outputs}"
            )


def _runtime_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a bad graph; its exceptions have no base of their own."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
             "NotImplemented", "RuntimeException")  # fmt: skip
    return (UnicodeDecodeError, *(getattr(state, name) for name in names))
