"""Label images with a bundle: files and folders in, one row per image out.

    python -m serve.batch model.onnx photos/ --output predictions.csv
    python -m serve.batch model.onnx a.jpg b.png --format jsonl --top 3
    python -m serve.batch resnet.onnx photos/ --labels labels.txt --input-range 0,1
    find photos -name '*.jpg' | python -m serve.batch model.onnx --inputs-from -

Of a multi-label model, where each label has a probability of its own, the column `labels` holds
every label whose probability reaches its threshold, as `cat|dog`: none, one or several.

A file that cannot be read becomes a row with the reason in the column `error`, and its neighbours
are labelled all the same. Rows keep the order of the inputs; a folder is walked in sorted order.
"""

import io
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import PIL
from numpy.typing import NDArray
from tqdm import tqdm

from serve.atomic import atomic_path
from serve.bundle import BundleDocument
from serve.classifier import Classifier
from serve.command import CommandParser, LockstepError, run_command
from serve.description import add_arguments, description
from serve.image_files import find_image_files
from serve.image_formats import READABLE
from serve.image_spec import ImageSpec
from serve.images import ImageError, read_image
from serve.row_writers import BUNDLE, row_writers
from serve.rows import WRITERS, Prediction

READ_AHEAD = 2
"""Batches that are read while one is being labelled."""


_Reading = list[Future[list[tuple[str, NDArray[np.uint8] | ImageError]]]]


def predict_files(
    classifier: Classifier, paths: Iterable[str], *, batch_size: int, workers: int
) -> Iterator[Prediction]:
    """Read and label files, in order, holding only a few batches in memory.

    Args:
        batch_size: images per call of the model.
        workers: threads that read and decode; the order and the answers do not depend on it.
    """
    remaining = iter(paths)
    with ThreadPoolExecutor(workers) as pool:

        def start_reading() -> _Reading:
            """One share of the next batch for each worker: a task per file costs too much."""
            batch = list(islice(remaining, batch_size))
            share = -(-len(batch) // workers)
            return [
                pool.submit(_read_all, batch[start : start + share], classifier.document.image)
                for start in range(0, len(batch), share or 1)
            ]

        ahead = deque(start_reading() for _ in range(READ_AHEAD))
        while batch := ahead.popleft():
            results = [result for share in batch for result in share.result()]
            ahead.append(start_reading())
            images = [image for _, image in results if not isinstance(image, ImageError)]
            answers = iter(classifier.predict(np.stack(images)) if images else ())
            for path, image in results:
                if isinstance(image, ImageError):
                    yield Prediction(path, None, " ".join(str(image).split()))
                else:
                    yield Prediction(path, next(answers))


def _read_all(
    paths: list[str], spec: ImageSpec
) -> list[tuple[str, NDArray[np.uint8] | ImageError]]:
    return [(path, _read(path, spec)) for path in paths]


def _read(path: str, spec: ImageSpec) -> NDArray[np.uint8] | ImageError:
    try:
        return read_image(path, spec)
    except ImageError as error:
        return error


def is_another_pillow(document: BundleDocument) -> bool:
    """Whether images were read by another major release of Pillow when the bundle was proven."""
    made_with = document.versions.get("pillow", PIL.__version__)
    return made_with.partition(".")[0] != PIL.__version__.partition(".")[0]


def find_images(inputs: Sequence[str]) -> tuple[list[str], int]:
    """Expand folders, at any depth, into the image files in them.

    Returns:
        The paths, and how many files in folders were passed over because neither their name nor
        their content is that of an image. What was named itself is always kept, even if it does
        not exist: it gets a row that says so.

    Raises:
        LockstepError: there is nothing to read at all.
    """
    paths: list[str] = []
    ignored = 0
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            images, others = find_image_files(path)
            ignored += len(others)
            paths += map(str, images)
        else:
            paths.append(name)
    if not paths:
        raise LockstepError(f"no images in {', '.join(inputs)}: expected {READABLE}")
    return paths, ignored


@contextmanager
def _destination(output: str) -> Iterator[TextIO]:
    """Standard output for "-", else a file that appears under its name only when complete.

    A path of bytes that are no UTF-8 is written with backslashes, which JSON reads back.
    """
    path = Path(output)
    if output == "-":
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        yield sys.stdout
        sys.stdout.flush()
    elif path.exists() and not path.is_file():  # a pipe or /dev/null: not to be replaced by a file
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
    else:
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
        ):
            yield stream


def _listed_paths(source: str) -> list[str]:
    """The lines of a file, or of standard input for "-"; any bytes can be a path."""
    if source == "-":
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")
        text = sys.stdin.read()
    else:
        text = Path(source).read_text(encoding="utf-8", errors="surrogateescape")
    return [line for line in text.split("\n") if line.strip()]


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="python -m serve.batch",
        description="One row per image: its label and probability (of a multi-label model, all its "
        "labels), or why it cannot be read.",
        epilog="example:\n  python -m serve.batch model.onnx photos/ --output predictions.csv",
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="the model.onnx of a run")
    add("inputs", metavar="INPUT", nargs="*", help="image files, and folders searched at any depth")
    add("--inputs-from", metavar="FILE", help="read paths from FILE, one a line; - for stdin")
    add("--output", metavar="FILE", default="-", help="where to write; - for stdout (default: -)")
    add("--format", choices=sorted(WRITERS), help="default: by the name of --output, else csv")
    add("--top", metavar="INT", type=_count,
        help="labels per image, most probable first (default: 1; of a multi-label model those that "
             "reach their threshold, and so many of the most probable besides)")  # fmt: skip
    add("--probabilities", action="store_true", help="add the probability of every class")
    add("--uncertain-below", metavar="SHARE", type=_threshold,
        help="call an answer uncertain if its probability is below this, or below the bundle's "
             "own threshold with the word bundle (default: never)")  # fmt: skip
    add("--batch-size", metavar="INT", type=_count, default=32, help="images at once (default: 32)")
    add("--workers", metavar="INT", type=_count, default=os.cpu_count() or 1,
        help="threads that read images (default: one per core)")  # fmt: skip
    add("--threads", metavar="INT", type=_count,
        help="threads of the model (default: one per core)")  # fmt: skip
    add("--quiet", action="store_true", help="no progress bar and no summary")
    add_arguments(parser)
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_count.__name__ = "an integer of at least 1"


def _threshold(text: str) -> float | str:
    if text == BUNDLE:
        return text
    share = float(text)
    if not 0 <= share <= 1:
        raise ValueError
    return share


_threshold.__name__ = "a share from 0 to 1"


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 1 if no input at all could be read."""
    options = _parser().parse_intermixed_args(arguments)
    inputs = list(options.inputs)
    if options.inputs_from:
        inputs += _listed_paths(options.inputs_from)
    if not inputs:
        raise LockstepError("expected image files or folders after the bundle; see --help")
    paths, ignored = find_images(inputs)
    classifier = Classifier(
        options.bundle,
        threads=options.threads or 0,
        description=description(options),
        thresholds=options.threshold or (),
    )
    by_name = "jsonl" if options.output.endswith((".jsonl", ".ndjson")) else "csv"
    open_writer = row_writers(
        classifier,
        options.format or by_name,
        top=options.top,
        all_probabilities=options.probabilities,
        uncertain_below=options.uncertain_below,
    )
    document = classifier.document
    if not options.quiet and is_another_pillow(document):
        print(
            f"note: made with Pillow {document.versions['pillow']}, this is Pillow "
            f"{PIL.__version__}: pixels can differ by some grey steps where it resizes otherwise",
            file=sys.stderr,
        )
    unreadable = 0
    predictions = predict_files(
        classifier, paths, batch_size=options.batch_size, workers=options.workers
    )
    with _destination(options.output) as stream:
        writer = open_writer(stream)
        for prediction in tqdm(
            predictions, total=len(paths), unit=" images", disable=options.quiet or None
        ):
            unreadable += prediction.probabilities is None
            writer.write(prediction)
    if not options.quiet:
        summary = f"{len(paths) - unreadable} labelled, {unreadable} unreadable"
        if ignored:
            summary += f", {ignored} other files in folders passed over"
        print(summary, file=sys.stderr)
    return 1 if unreadable == len(paths) else 0


if __name__ == "__main__":
    run_command(main)
