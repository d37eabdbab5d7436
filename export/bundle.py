"""A Keras model that was trained elsewhere, as a proven bundle.

    python -m export.bundle model.keras --labels labels.txt --image-size 224 \\
        --images photos/ --output model.onnx

The same export and the same gate as after a training here: Keras's own `predict` on the images
given is the reference, and the bundle gets its name only when onnxruntime, the batch command and
the server answer alike. Where the images lie in folders named after the labels, the accuracy is
measured too.
"""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from export.figures import accuracy
from export.parity import Check
from export.prepared_data import MAX_PROOF_EXAMPLES, evenly_spaced
from export.quiet_tensorflow import import_tensorflow
from export.verify import ParityError, failures, format_checks
from serve.command import CommandParser, LockstepError, run_command
from serve.description import Description, add_image_arguments, description
from serve.image_files import find_image_files
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image

SHOWN = 20


@dataclass(frozen=True)
class ReadImages:
    """The images that were given, read as the bundle will read them.

    Attributes:
        pixels: uint8 `[images, height, width, channels]`.
        paths: their files.
        labels: int64 `[images]` where every image lies in a folder named after a label, else None.
        unreadable: files that are no readable images, with reasons.
    """

    pixels: NDArray[np.uint8]
    paths: list[Path]
    labels: NDArray[np.int64] | None
    unreadable: list[tuple[Path, str]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all pixels, in order."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()


def bundle(
    model_path: Path,
    given: Description,
    images: Path,
    output: Path,
    *,
    max_examples: int = MAX_PROOF_EXAMPLES,
) -> tuple[dict[str, Check], ReadImages]:
    """Export `model_path` and prove it on the images in a folder; write `output` if it passes.

    Args:
        given: what is known of the model; without a normalization, the range is 0 to 255.
        max_examples: images at most.

    Raises:
        LockstepError: the model is no classifier of such images, or there are none.
        ExportError: a layer cannot be exported faithfully; it is named.
        ParityError: the exported file answers otherwise than Keras.
    """
    import_tensorflow()
    from export.diagnose import first_unfaithful_layer
    from export.examples import Examples
    from export.foreign_keras import adopt
    from export.proof import BUNDLE_PATHS, check_bundle, release
    from export.serving_function import ExportError
    from export.to_onnx import creation_time, export_onnx, tool_versions
    from serve.bundle import BundleDocument

    if given.mean is None:
        given = replace(given, mean=(0.0,), std=(1 / 255,))
    adopted = adopt(model_path, given)
    read = read_images(images, adopted.spec, given.class_names, max_examples)
    reference = adopted.reference(read.pixels)
    mean, std = given.normalization(adopted.spec.channels)
    document = BundleDocument(
        class_names=given.class_names,
        image=adopted.spec,
        mean=mean,
        std=std,
        dataset_fingerprint=read.fingerprint,
        config_hash=_config_hash(model_path, given),
        metrics=_metrics(reference, read.labels),
        versions=tool_versions(),
        created=creation_time(),
    )
    expected = {"class_names": given.class_names, "image": adopted.spec, "mean": mean, "std": std}
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=1 + len(BUNDLE_PATHS), desc="bundle", unit=" steps", disable=None) as bar,
    ):

        def progress(step: str) -> None:
            bar.set_postfix_str(step)
            bar.update()

        unproven = Path(folder, "model.onnx")
        progress("export")
        try:
            export_onnx(adopted.serving_function(), document, unproven)
        except ExportError as error:
            layer = first_unfaithful_layer(adopted.model, adopted.normalize(read.pixels[:2]))
            raise ExportError(f"{model_path}: {_blame(layer)}{error}") from error
        examples = Examples(
            images=read.pixels,
            rows=np.arange(len(read.pixels)),
            labels=read.labels,
            files=read.paths,
            reference=reference,
            class_names=given.class_names,
        )
        checks = check_bundle(unproven, examples, expected, progress=progress)
        if not all(check["passed"] for check in checks.values()):
            layer = first_unfaithful_layer(adopted.model, adopted.normalize(read.pixels[:2]))
            raise ParityError(
                f"{model_path}: {_blame(layer)}the proof failed ({failures(checks)}); "
                "nothing was written"
            )
        release(unproven, output, checks)
    return checks, read


def read_images(
    folder: Path, spec: ImageSpec, class_names: Sequence[str], max_examples: int
) -> ReadImages:
    """Read up to `max_examples` images of a folder, searched at any depth and evenly spaced.

    Raises:
        LockstepError: it holds none that can be read.
    """
    if not folder.is_dir():
        raise LockstepError(f"{folder}: no such folder; expected one with images to prove it on")
    files, _ = find_image_files(folder)
    chosen = evenly_spaced(np.arange(len(files)), max_examples)
    pixels = np.empty((len(chosen), *spec.shape), np.uint8)
    paths: list[Path] = []
    unreadable: list[tuple[Path, str]] = []
    for number in tqdm(chosen, desc="read", unit=" images", disable=None):
        path = files[number]
        try:
            pixels[len(paths)] = read_image(path, spec)
            paths.append(path)
        except ImageError as error:
            unreadable.append((path, str(error)))
    if not paths:
        first = f"; first: {unreadable[0][0]}: {unreadable[0][1]}" if unreadable else ""
        raise LockstepError(
            f"{folder}: expected images to prove the model on, got {len(files)} image files of "
            f"which none can be read{first}"
        )
    return ReadImages(pixels[: len(paths)], paths, _labels(folder, paths, class_names), unreadable)


def _labels(
    folder: Path, paths: list[Path], class_names: Sequence[str]
) -> NDArray[np.int64] | None:
    numbers = {name: number for number, name in enumerate(class_names)}
    found = [numbers.get(path.relative_to(folder).parts[0]) for path in paths]
    known = [number for number in found if number is not None]
    return np.asarray(known, np.int64) if len(known) == len(paths) else None


def _metrics(reference: NDArray[np.float32], labels: NDArray[np.int64] | None) -> dict[str, float]:
    figures: dict[str, float] = {"examples": len(reference)}
    if labels is not None:
        figures["accuracy"] = accuracy(labels, reference)
    return figures


def _config_hash(model_path: Path, given: Description) -> str:
    digest = hashlib.sha256(model_path.read_bytes())
    digest.update(json.dumps(asdict(given), sort_keys=True).encode())
    return digest.hexdigest()


def _blame(layer: str | None) -> str:
    return f"layer {layer} cannot be exported faithfully: " if layer else ""


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if the model cannot be exported faithfully."""
    parser = CommandParser(
        prog="python -m export.bundle",
        description="Turn a Keras model that was trained elsewhere into a proven bundle.",
        epilog="examples:\n"
        "  python -m export.bundle a.keras --labels labels.txt --images photos/ --output a.onnx\n"
        "  python -m export.bundle model.keras --labels labels.txt --images photos/ \\\n"
        "      --image-size 224 --input-range=-1,1 --output m.onnx",
    )
    add = parser.add_argument
    add("model", metavar="MODEL", type=Path, help="a .keras file")
    add("--labels", metavar="FILE", required=True,
        help="text file: the name of each class, one a line, in order")  # fmt: skip
    add("--images", metavar="DIR", type=Path, required=True,
        help="images to prove it on; in folders named as the labels are: accuracy")  # fmt: skip
    add("--output", metavar="FILE", type=Path, required=True, help="where the bundle goes")
    add("--max-examples", metavar="INT", type=int, default=MAX_PROOF_EXAMPLES,
        help=f"images at most, evenly spaced (default: {MAX_PROOF_EXAMPLES})")  # fmt: skip
    add_image_arguments(add)
    options = parser.parse_args(arguments)
    given = description(options)
    assert given is not None  # the labels are required
    if options.max_examples < 1:
        raise LockstepError(f"--max-examples: expected at least 1, got {options.max_examples}")
    checks, read = bundle(
        options.model, given, options.images, options.output, max_examples=options.max_examples
    )
    print(format_checks(checks))
    for path, reason in read.unreadable[:SHOWN]:
        print(f"skipped {path}: {reason}")
    if len(read.unreadable) > SHOWN:
        print(f"skipped {len(read.unreadable) - SHOWN} more that cannot be read")
    size = options.output.stat().st_size / 1e6
    print(f"\nbundle     {options.output}, {size:.2f} MB, proven on {len(read.pixels)} images")
    return 0


if __name__ == "__main__":
    run_command(main)
