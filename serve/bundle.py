"""The bundle: one ONNX file that says what it is.

Input `image`: uint8 `[batch, height, width, channels]`; output `probabilities`: float32
`[batch, classes]`. The ONNX metadata entry `lockstep.bundle` holds one JSON document with all that
a server must know and a reader may ask: `BundleDocument`. Its field `sha256` covers every other
byte of the file and every other field of the document, so that nothing is changed unnoticed.
"""

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from serve.command import LockstepError
from serve.image_spec import ImageSpec
from serve.onnx_file import OnnxFile, TensorInfo, outline, with_entry, without_entry

FORMAT = 2
METADATA_KEY = "lockstep.bundle"
INPUT = "image"
OUTPUT = "probabilities"
PRECISIONS = ("float32", "int8")
DIGEST = "sha256"
TASKS = ("single-label", "multi-label")
"""One label of several per image, or any number of labels, each with a probability of its own."""
STATUSES = ("good", "bad", "unknown")
ADDED_IN_FORMAT_2: Mapping[str, Any] = {"task": TASKS[0], "thresholds": [], "verdict": []}
"""Fields that a document of format 1 lacks, and what it means by that."""
UNFIT_OPERATORS = ("Loop", "Scan", "Random", "Bernoulli", "Multinomial", "Sequence", "String")
"""How operators begin that can run without end, grow without bound, or answer by chance."""


class BundleError(LockstepError):
    """A file that is no bundle, or one that contradicts itself."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """The confidence below which an answer is better called uncertain.

    Attributes:
        threshold: smallest top probability of a certain answer; found on the validation split.
        coverage: share of the test split at or above it.
        accuracy: accuracy on that share.
    """

    threshold: float
    coverage: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding about what the model is worth; all of them are its verdict.

    Attributes:
        name: what was looked at, such as "better than the commonest class".
        status: "good", "bad", or "unknown" where there are too few images to tell.
        text: one sentence with the figures and the number of images behind them.
    """

    name: str
    status: str
    text: str


@dataclasses.dataclass(frozen=True)
class BundleDocument:
    """What a bundle says of itself.

    Attributes:
        class_names: label of each output column, in order.
        image: how a file becomes the input array.
        mean, std: per-channel normalization, in units of pixel / 255. For the record: it is applied
            inside the graph.
        temperature: the logits are divided by it before the softmax, inside the graph; fitted so
            that a probability is the share of right answers. 1 if nothing was fitted.
        rejection: where to call an answer uncertain, if that was asked for.
        precision: numbers of the graph's convolutions: "float32" or "int8".
        dataset_fingerprint: SHA-256 of the images it was trained on, or proven on.
        config_hash: SHA-256 of the options it was made with.
        metrics: headline figures on the test split.
        parity: the proof: for each path its figures against Keras. Empty before the proof.
        versions: the tools that made this file.
        created: when, as ISO 8601 in UTC.
        task: "single-label" (the probabilities of an image sum to 1) or "multi-label" (each label
            has a probability of its own, between 0 and 1).
        thresholds: multi-label: for each label the smallest probability at which an image has it.
            Empty for a single-label model.
        verdict: whether the model is any good, apart from being the same everywhere.
    """

    class_names: tuple[str, ...]
    image: ImageSpec
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset_fingerprint: str
    config_hash: str
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    created: str
    temperature: float = 1.0
    rejection: Rejection | None = None
    precision: str = "float32"
    parity: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    task: str = TASKS[0]
    thresholds: tuple[float, ...] = ()
    verdict: tuple[Finding, ...] = ()
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        """Plain values as JSON reads them; without the digest, which only a file has."""
        return dict(json.loads(json.dumps(dataclasses.asdict(self))))

    @classmethod
    def from_json(cls, document: Any) -> "BundleDocument":
        """Read what `to_json` gave, checking the form of every field.

        Raises:
            BundleError: naming the field that is missing, unknown or of the wrong kind.
        """
        if not isinstance(document, dict) or "format" not in document:
            raise BundleError("the bundle's document has no field 'format'")
        if isinstance(document["format"], bool) or document["format"] not in (1, FORMAT):
            raise BundleError(
                f"expected a bundle of format 1 or {FORMAT}, got {document['format']!r:.80}; "
                "use the Lockstep release that wrote it, or export the model again"
            )
        if document["format"] == 1:
            document = {**ADDED_IN_FORMAT_2, **document, "format": FORMAT}
        fields = {field.name for field in dataclasses.fields(cls)}
        if set(document) != fields:
            missing, unknown = sorted(fields - set(document)), sorted(set(document) - fields)
            raise BundleError(
                f"the bundle's document lacks {missing!r:.200} and has unknown {unknown!r:.200}"
            )
        values = {name: _READ[name](document[name], name) for name in _READ}
        channels = values["image"].channels
        for name in ("mean", "std"):
            expected = f"one number for each of {channels} channels"
            _expect(len(values[name]) == channels, name, expected, document[name])
        _expect(min(values["std"]) > 0, "std", "above 0", document["std"])
        labels = len(values["class_names"]) if values["task"] == "multi-label" else 0
        expected = "one number for each label of a multi-label model, and else none"
        _expect(len(values["thresholds"]) == labels, "thresholds", expected, document["thresholds"])
        return cls(**values)


def seal(content: bytes, document: Mapping[str, Any]) -> bytes:
    """An ONNX file with `document` as its metadata entry, in place of one that it may have.

    Args:
        document: plain values, as `BundleDocument.to_json` gives them. The digest is added.
    """
    rest = without_entry(content, METADATA_KEY)
    fields = {name: value for name, value in document.items() if name != DIGEST}
    text = _canonical({**fields, DIGEST: _digest(rest, fields)})
    return with_entry(rest, METADATA_KEY, text)


def read_document(content: bytes, text: str) -> BundleDocument:
    """The document in the metadata entry `text` of the file `content`.

    Raises:
        BundleError: it is damaged, or file and document are no longer those that were sealed.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"the bundle's document is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BundleError("the bundle's document has no field 'format'")
    sealed = fields.pop(DIGEST, None)
    document = BundleDocument.from_json(fields)
    if sealed != _digest(without_entry(content, METADATA_KEY), fields):
        raise BundleError(
            "its content does not match the digest in its document: it was damaged or changed "
            "after it was exported; copy it again, or export it again"
        )
    return document


def bundle_document(content: bytes, file: OnnxFile | None = None) -> BundleDocument:
    """The document of a file, checked against its graph and its bytes.

    Args:
        file: its outline, where that was made already.

    Raises:
        BundleError: there is none, it is damaged, or the graph is not the one it describes.
    """
    file = file or outline(content)
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise BundleError(
            f"no bundle: its metadata has no entry {METADATA_KEY!r}; export it with Lockstep, or "
            "give --labels to use it as it is"
        )
    document = read_document(content, text)
    unfit = sorted(name for name in file.operators if name.startswith(UNFIT_OPERATORS))
    if unfit:
        raise BundleError(f"no image classifier needs the operators {', '.join(unfit):.200}")
    expected_inputs = [TensorInfo(INPUT, "uint8", document.image.shape)]
    expected_outputs = [TensorInfo(OUTPUT, "float32", (len(document.class_names),))]
    inputs, outputs = (
        [TensorInfo(value.name, value.element, value.shape[1:]) for value in values]
        for values in (file.inputs, file.outputs)
    )
    if inputs != expected_inputs or outputs != expected_outputs:
        raise BundleError(
            "the graph contradicts the document: expected "
            f"{_show(expected_inputs)} -> {_show(expected_outputs)}, "
            f"got {_show(inputs)} -> {_show(outputs)}"
        )
    return document


def _show(values: list[TensorInfo]) -> str:
    shown = (
        f"{value.name} {value.element} [batch, {', '.join(map(str, value.shape))}]"
        for value in values
    )
    return ", ".join(shown)[:300] or "nothing"


def _canonical(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def _digest(rest: bytes, fields: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(rest)
    digest.update(_canonical(fields).encode())
    return digest.hexdigest()


def _expect(condition: bool, field: str, expected: str, value: object) -> None:
    if not condition:
        raise BundleError(
            f"the bundle's document: expected {field} to be {expected}, got {value!r:.80}"
        )


def _is_text(value: object) -> bool:
    """JSON can hold halves of characters, which no file and no terminal can."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _text(value: object, field: str) -> str:
    _expect(_is_text(value), field, "text", value)
    return str(value)


def _texts(value: object, field: str) -> tuple[str, ...]:
    good = isinstance(value, list) and value and all(map(_is_text, value))
    _expect(bool(good), field, "a list of names", value)
    assert isinstance(value, list)
    _expect(len(set(value)) == len(value), field, "without repetition", value)
    return tuple(value)


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) <= sys.float_info.max


def _number(value: Any, field: str) -> float:
    _expect(_is_number(value), field, "a number", value)
    return float(value)


def _numbers(value: object, field: str) -> tuple[float, ...]:
    _expect(isinstance(value, list) and bool(value), field, "a list of numbers", value)
    assert isinstance(value, list)
    _expect(all(map(_is_number, value)), field, "a list of numbers", value)
    return tuple(map(float, value))


def _temperature(value: object, field: str) -> float:
    temperature = _number(value, field)
    _expect(temperature > 0, field, "above 0", value)
    return temperature


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any, str], str]:
    def read(value: object, field: str) -> str:
        _expect(value in allowed, field, f"one of {', '.join(allowed)}", value)
        return str(value)

    return read


def _thresholds(value: object, field: str) -> tuple[float, ...]:
    good = isinstance(value, list) and all(_is_number(item) and 0 <= item <= 1 for item in value)
    _expect(good, field, "a list of numbers from 0 to 1", value)
    assert isinstance(value, list)
    return tuple(map(float, value))


def _verdict(value: object, field: str) -> tuple[Finding, ...]:
    names = {item.name for item in dataclasses.fields(Finding)}
    good = isinstance(value, list) and all(
        isinstance(item, dict)
        and set(item) == names
        and all(map(_is_text, item.values()))
        and item["status"] in STATUSES
        for item in value
    )
    _expect(good, field, f"a list of texts named {', '.join(sorted(names))}", value)
    assert isinstance(value, list)
    return tuple(Finding(**item) for item in value)


def _figures(value: object, field: str) -> dict[str, float]:
    good = isinstance(value, dict) and all(map(_is_number, value.values()))
    _expect(good, field, "a mapping of names to numbers", value)
    assert isinstance(value, dict)
    return value


def _parity(value: object, field: str) -> dict[str, dict[str, float]]:
    _expect(isinstance(value, dict), field, "a mapping of paths to figures", value)
    assert isinstance(value, dict)
    return {path: _figures(figures, field) for path, figures in value.items()}


def _versions(value: object, field: str) -> dict[str, str]:
    good = isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    _expect(good, field, "a mapping of names to texts", value)
    assert isinstance(value, dict)
    return value


def _rejection(value: object, field: str) -> Rejection | None:
    if value is None:
        return None
    names = {item.name for item in dataclasses.fields(Rejection)}
    shares = value if isinstance(value, dict) and set(value) == names else {}
    good = shares and all(_is_number(item) and 0 <= item <= 1 for item in shares.values())
    _expect(bool(good), field, f"null or shares named {', '.join(sorted(names))}", value)
    return Rejection(**shares)


def _image_spec(value: object, field: str) -> ImageSpec:
    try:
        return ImageSpec.from_json(value)
    except LockstepError as error:
        raise BundleError(f"the bundle's document: {error}") from None


_READ: dict[str, Callable[[Any, str], Any]] = {
    "class_names": _texts,
    "image": _image_spec,
    "mean": _numbers,
    "std": _numbers,
    "dataset_fingerprint": _text,
    "config_hash": _text,
    "metrics": _figures,
    "versions": _versions,
    "created": _text,
    "temperature": _temperature,
    "rejection": _rejection,
    "precision": _one_of(PRECISIONS),
    "parity": _parity,
    "task": _one_of(TASKS),
    "thresholds": _thresholds,
    "verdict": _verdict,
}
"""How each field but `format` is checked and read."""
