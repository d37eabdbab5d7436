"""A Keras model that was trained elsewhere, as a proven bundle.

    python -m export.bundle model.keras --labels labels.txt --image-size 224 \\
        --images photos/ --output model.onnx

The same export and the same gate as after a training here: Keras's own `predict` on the images
given is the reference, and the bundle gets its name only when onnxruntime, the batch command and
the server answer alike. Where the images lie in folders named after the labels, the accuracy is
measured too, and what would give a far better one is said: equal is not yet right. Of a multi-label
model, where an image may have several labels, a table (`--truth`) says which it has.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from export.multi_label import format_figures
from export.parity import Check
from export.prepared_data import MAX_PROOF_EXAMPLES
from export.progress import step
from export.quiet_tensorflow import import_tensorflow
from serve.command import CommandParser, LockstepError, run_command
from serve.description import add_image_arguments, description
from serve.multi_label import MULTI_LABEL

if TYPE_CHECKING:
    from export.foreign.adoption import Adopted, Request

SHOWN = 20
FRAME = "!" * 72
ALARMING = ("better than the commonest class", "better than guessing", "more than one answer",
            "every class is found", "every label is found")  # fmt: skip
"""Findings that, if bad, say that the model or its description is wrong."""


def bundle(request: "Request", output: Path) -> "tuple[dict[str, Check], Adopted]":
    """Adopt a model, prove it on the images, and write `output` if it passes.

    Raises:
        LockstepError: the model is no classifier of such images, there are none, or something is
            open that only a person knows.
        ExportError: a layer cannot be exported faithfully; it is named.
        ParityError: the exported file answers otherwise than Keras.
    """
    from export.foreign.adoption import adopt_and_measure
    from export.foreign.proof import prove

    adopted = adopt_and_measure(request)
    print("\n".join(found(adopted)), flush=True)
    return prove(adopted, output), adopted


def found(adopted: "Adopted") -> list[str]:
    """What was found out about a model, in lines for the terminal."""
    mean, std = adopted.given.normalization(adopted.model.spec.channels)
    lines = [f"skipped {path}: {reason}" for path, reason in adopted.read.unreadable[:SHOWN]]
    if len(adopted.read.unreadable) > SHOWN:
        lines.append(f"skipped {len(adopted.read.unreadable) - SHOWN} more that cannot be read")
    lines += [
        f"input      (pixel / 255 - {_numbers(mean)}) / {_numbers(std)}: {adopted.range_reason}",
        f"outputs    {adopted.decision.head.outputs}: {adopted.decision.reason}",
        *(f"labels     {line}" for line in _labels_told(adopted)),
        *adopted.tables,
        *([format_figures(adopted.figures)] if adopted.figures else []),
        f"accuracy   {adopted.accuracy_told()}",
    ]
    return lines


def _labels_told(adopted: "Adopted") -> Sequence[str]:
    """What was matched how: folders, or the table of a multi-label model."""
    if adopted.decision.head.task == MULTI_LABEL:
        return adopted.truth.told if adopted.truth else ()
    return adopted.read.told(adopted.given.class_names)


def judged(adopted: "Adopted") -> list[str]:
    """The verdict and every warning; framed if something says that the answers are wrong."""
    alarms = [item for item in adopted.verdict if item.status == "bad" and item.name in ALARMING]
    calm = [item for item in adopted.verdict if item not in alarms]
    lines = [f"{item.status:<10} {item.text}" for item in calm]
    if not (alarms or adopted.warnings):
        return lines
    wrong = [*(item.text for item in alarms), *adopted.warnings]
    if not adopted.warnings:
        wrong.append(
            "likely causes: another input range (--input-range, --mean, --std), labels in another "
            "order, another --resize, or a model that was not trained on such images"
        )
    title = "the bundle answers as Keras does, but likely not as it should:"
    return [*lines, FRAME, title, *(f"WARNING    {text}" for text in wrong), FRAME]


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if the model cannot be exported faithfully."""
    options = _parser().parse_args(arguments)
    given = description(options)
    assert given is not None  # the labels are required
    if options.max_examples < 1:
        raise LockstepError(f"--max-examples: expected at least 1, got {options.max_examples}")
    _check_paths(options)
    step("load TensorFlow")
    import_tensorflow()
    from export.foreign.adoption import Request

    request = Request(
        model=options.model,
        given=given,
        images=options.images,
        max_examples=options.max_examples,
        custom=options.custom,
        resize_said=options.resize is not None,
        truth=options.truth,
    )
    checks, adopted = bundle(request, options.output)
    from export.verify import format_checks

    print(format_checks(checks))
    print("\n".join(judged(adopted)))
    size, task = options.output.stat().st_size / 1e6, adopted.decision.head.task
    print(f"accuracy   {adopted.accuracy_told()}")
    proven = f"{task}, proven on {len(adopted.read.paths):,} images"
    print(f"bundle     {options.output}, {size:.2f} MB, {proven}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m export.bundle",
        description="Turn a Keras model that was trained elsewhere into a proven bundle.",
        epilog="examples:\n"
        "  python -m export.bundle a.keras --labels labels.txt --images photos/ --output a.onnx\n"
        "  python -m export.bundle model.keras --labels labels.txt --images photos/ \\\n"
        "      --image-size 224 --input-range=-1,1 --output m.onnx\n"
        "Without --input-range, a model that does not scale pixels itself is tried with the usual\n"
        "ranges, and a table shows the accuracy with each.",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="a .keras file")
    add("--labels", metavar="FILE", required=True,
        help="text file: the name of each class, one a line, in order")  # fmt: skip
    add("--images", metavar="DIR", type=Path, required=True,
        help="images to prove it on; in folders named as the labels are: accuracy")  # fmt: skip
    add("--truth", metavar="FILE", type=Path,
        help="of a multi-label model: a CSV file with the path of each image and a column of 0 and "
             "1 for each label, or a column labels: cat|dog")  # fmt: skip
    add("--output", metavar="FILE", type=Path, required=True, help="where the bundle goes")
    add("--max-examples", metavar="INT", type=int, default=MAX_PROOF_EXAMPLES,
        help=f"images at most, evenly spaced (default: {MAX_PROOF_EXAMPLES})")  # fmt: skip
    add("--custom", metavar="FILE", type=Path,
        help="Python file with the model's own layers and functions; its code is run")  # fmt: skip
    add_image_arguments(add)
    return parser


def _check_paths(options: argparse.Namespace) -> None:
    """What can be told before TensorFlow is loaded."""
    from export.foreign.formats import expect_keras_3
    from export.foreign.images import image_files

    expect_keras_3(options.model)
    image_files(options.images)
    if options.custom is not None and not options.custom.is_file():
        raise LockstepError(f"--custom: expected a Python file, got {options.custom}")
    if options.truth is not None and not options.truth.is_file():
        raise LockstepError(f"--truth: expected a CSV file, got {options.truth}")
    if options.output.is_dir():
        raise LockstepError(f"--output: expected a file, got the folder {options.output}")


def _numbers(values: Sequence[float]) -> str:
    """One number if all are the same."""
    different = sorted(set(values)) if len(set(values)) == 1 else values
    return ", ".join(f"{value:.4g}" for value in different)


if __name__ == "__main__":
    run_command(main)
