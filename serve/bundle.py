"""The bundle: one ONNX file that says what it is.

Input `image`: uint8 `[batch, height, width, channels]`; output `probabilities`: float32
`[batch, classes]`. The ONNX metadata entry `lockstep.bundle` holds one JSON document with all that
a server must know and a reader may ask: `BundleDocument`.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from serve.command import LockstepError
from serve.images import ImageSpec

FORMAT = 1
METADATA_KEY = "lockstep.bundle"
INPUT = "image"
OUTPUT = "probabilities"


class BundleError(LockstepError):
    """A file that is no bundle, or one that contradicts itself."""


@dataclasses.dataclass(frozen=True)
class BundleDocument:
    """What a bundle says of itself.

    Attributes:
        class_names: label of each output column, in order.
        image: how a file becomes the input array.
        mean, std: per-channel normalization, in units of pixel / 255. For the record: it is applied
            inside the graph.
        dataset_fingerprint: SHA-256 of the prepared data the model was trained on.
        config_hash: SHA-256 of the run's resolved config.
        metrics: headline figures on the test split.
        versions: the tools that made this file.
    """

    class_names: tuple[str, ...]
    image: ImageSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset_fingerprint: str
    config_hash: str
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    format: int = FORMAT

    def to_json(self) -> str:
        """The JSON text that goes into the ONNX metadata."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "BundleDocument":
        """Read what `to_json` wrote, checking the form of every field.

        Raises:
            BundleError: naming the field that is missing, unknown or of the wrong kind.
        """
        try:
            document: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"the bundle's document is not JSON: {error}") from None
        if not isinstance(document, dict) or "format" not in document:
            raise BundleError("the bundle's document has no field 'format'")
        if document["format"] != FORMAT:
            raise BundleError(
                f"expected a bundle of format {FORMAT}, got {document['format']!r:.80}; "
                "use the Lockstep release that wrote it, or export the model again"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        if set(document) != names:
            missing, unknown = sorted(names - set(document)), sorted(set(document) - names)
            raise BundleError(f"the bundle's document lacks {missing} and has unknown {unknown}")
        return cls(
            class_names=_texts(document["class_names"]),
            image=_image_spec(document["image"]),
            mean=_numbers(document["mean"], "mean"),
            std=_numbers(document["std"], "std"),
            dataset_fingerprint=_text(document["dataset_fingerprint"], "dataset_fingerprint"),
            config_hash=_text(document["config_hash"], "config_hash"),
            metrics=_mapping(document["metrics"], "metrics", (int, float)),
            versions=_mapping(document["versions"], "versions", (str,)),
        )


def _expect(condition: bool, field: str, expected: str, value: object) -> None:
    if not condition:
        raise BundleError(
            f"the bundle's document: expected {field} to be {expected}, got {value!r:.80}"
        )


def _text(value: object, field: str) -> str:
    _expect(isinstance(value, str), field, "text", value)
    return str(value)


def _texts(value: object) -> tuple[str, ...]:
    good = isinstance(value, list) and value and all(isinstance(name, str) for name in value)
    _expect(bool(good), "class_names", "a list of names", value)
    assert isinstance(value, list)
    _expect(len(set(value)) == len(value), "class_names", "without repetition", value)
    return tuple(value)


def _numbers(value: object, field: str) -> tuple[float, ...]:
    good = isinstance(value, list) and all(_is_finite(item) for item in value)
    _expect(good, field, "a list of numbers", value)
    assert isinstance(value, list)
    return tuple(float(item) for item in value)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _mapping(value: object, field: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    good = isinstance(value, dict) and all(isinstance(item, kinds) for item in value.values())
    _expect(good, field, "a mapping of names to plain values", value)
    assert isinstance(value, dict)
    return value


def _image_spec(value: object) -> ImageSpec:
    try:
        return ImageSpec.from_json(value)
    except LockstepError as error:
        raise BundleError(f"the bundle's document: {error}") from None
