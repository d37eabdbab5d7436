"""What is this file? Print what a bundle says of itself, and what its graph holds.

    python -m serve.inspect runs/digits/model.onnx
    python -m serve.inspect runs/digits/model.onnx --json

The file is checked as it would be for serving, but not loaded: that takes milliseconds and no
onnxruntime session. Any other ONNX file is described as far as its graph tells.
"""

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from serve.bundle import METADATA_KEY, BundleDocument, bundle_document
from serve.command import CommandParser, LockstepError, printable, run_command
from serve.multi_label import MULTI_LABEL
from serve.onnx_file import TensorInfo, outline, read_file
from serve.rounding import percent, rounded
from serve.verdict import summary

SHOWN_CLASSES = 20
SHARES = ("accuracy", "precision", "recall", "f1", "ece", "label_agreement", "label_accuracy",
          "average_precision")  # fmt: skip
"""How the names of figures begin that are shares of images."""


def describe(path: Path) -> dict[str, Any]:
    """Plain values: `file`, `graph`, and `document` (None if the file has none).

    Raises:
        LockstepError: the file would be refused for serving.
    """
    try:
        content = read_file(path)
        file = outline(content)
        document = bundle_document(content, file) if METADATA_KEY in file.metadata else None
    except LockstepError as error:
        raise LockstepError(f"{path}: {error}") from None
    return {
        "file": {
            "path": str(path),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        },
        "graph": {
            "inputs": [_tensor(value) for value in file.inputs],
            "outputs": [_tensor(value) for value in file.outputs],
            "parameters": file.parameters,
            "operators": dict(file.operators),
            "opset": file.opset,
            "ir_version": file.ir_version,
            "producer": file.producer,
        },
        "document": document.to_json() if document else None,
    }


def _tensor(value: TensorInfo) -> dict[str, Any]:
    return {"name": value.name, "type": value.element, "shape": list(value.shape)}


def for_people(path: Path) -> str:
    """The same as aligned text."""
    description = describe(path)
    file, graph = description["file"], description["graph"]
    rows = [
        ("file", f"{file['path']}, {file['bytes'] / 1e6:.2f} MB"),
        ("sha256", file["sha256"]),
        ("input", _signature(graph["inputs"])),
        ("output", _signature(graph["outputs"])),
        ("graph", f"{graph['parameters']:,} parameters, opset {graph['opset']}: "
         + ", ".join(f"{count} {name}" for name, count in graph["operators"].items())),
    ]  # fmt: skip
    if description["document"] is None:
        rows.append(("document", "none: no bundle of Lockstep; give --labels to use it as it is"))
        rows.append(("producer", graph["producer"] or "unknown"))
    else:
        rows += _document_rows(BundleDocument.from_json(description["document"]))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {printable(value)}" for name, value in rows)


def _signature(tensors: Iterable[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{tensor['name']} {tensor['type']} [{', '.join(map(str, tensor['shape']))}]"
        for tensor in tensors
    )


def _document_rows(document: BundleDocument) -> list[tuple[str, str]]:
    spec, names = document.image, document.class_names
    more = f", … ({len(names)} in all)" if len(names) > SHOWN_CLASSES else ""
    rows = [
        ("digest", "the file is as it was exported"),
        ("created", f"{document.created} by " + _pairs(document.versions)),
        ("precision", document.precision),
        ("classes", f"{len(names)}: " + ", ".join(names[:SHOWN_CLASSES]) + more),
        ("image", f"{spec.height}x{spec.width}, {'grey' if spec.channels == 1 else 'RGB'}, "
         f"resize {spec.resize} ({spec.resample}), background {spec.background}, "
         f"at most {spec.max_pixels:,} pixels"),
        ("in the graph", f"(pixel / 255 - {_list(document.mean)}) / {_list(document.std)}, "
         f"temperature {document.temperature:.4g}"),
    ]  # fmt: skip
    if document.task == MULTI_LABEL:
        rows.append(("task", f"{document.task}: an image has every label from its threshold on"))
        rows.append(("thresholds", _thresholds(document)))
    if document.rejection:
        images = int(document.metrics.get("examples", 0))
        rows.append(
            ("uncertain", f"below {document.rejection.threshold:.4f}; the rest is "
             f"{percent(document.rejection.coverage, images)} of the test images, "
             f"{percent(document.rejection.accuracy, images)} of them right")
        )  # fmt: skip
    rows.append(("metrics", _measured(document.metrics) or "none"))
    if document.verdict:
        rows.append(("verdict", f"the model is {summary(document.verdict)}"))
        rows += [("", f"{finding.status:<7}  {finding.text}") for finding in document.verdict]
    rows += [(f"proof {path}", _measured(figures)) for path, figures in document.parity.items()]
    if not document.parity:
        rows.append(("proof", "none: not released by a proof"))
    rows.append(("data", document.dataset_fingerprint or "unknown"))
    rows.append(("config", document.config_hash or "unknown"))
    return rows


def _thresholds(document: BundleDocument) -> str:
    """An image has a label from here on."""
    different = set(document.thresholds)
    if len(different) == 1:
        return f"{different.pop():.4g} for every label"
    shown = dict(zip(document.class_names, document.thresholds, strict=True))
    more = ", …" if len(shown) > SHOWN_CLASSES else ""
    return _pairs(dict(list(shown.items())[:SHOWN_CLASSES])) + more


def _measured(figures: Mapping[str, float]) -> str:
    """Figures of images, each share with the digits that so many images know."""
    images = int(figures.get("examples", 0))
    return ", ".join(
        f"{name} {rounded(value, images)}"
        if images and name.startswith(SHARES)
        else _pairs({name: value})
        for name, value in figures.items()
    )


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def _list(numbers: Iterable[float]) -> str:
    text = ", ".join(f"{number:.4g}" for number in numbers)
    return f"({text})" if "," in text else text


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = CommandParser(
        prog="python -m serve.inspect",
        description="What an ONNX file says of itself, and what its graph holds.",
        epilog="example:\n  python -m serve.inspect model.onnx --json",
    )
    parser.add_argument("bundle", metavar="BUNDLE", type=Path, help="an ONNX file")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    options = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.json:
        print(json.dumps(describe(options.bundle), indent=2))
    else:
        print(for_people(options.bundle))
    return 0


if __name__ == "__main__":
    run_command(main)
