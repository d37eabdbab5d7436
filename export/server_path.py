"""The server as a path of the proof: what it answers for pixels and for encoded files.

Several callers at once, so that the server computes images of different requests together; and
among them files that are no images, which must cost nobody else an answer.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.examples import Examples, PathError
from export.label_sets import check_label_set
from export.parity import BATCH_SIZES
from export.server_client import AnswerError, Client
from export.server_process import BATCH, Server, serving

CALLERS = BATCH
"""So many requests of one image fill a batch."""

FEW, MOST = 7, max(BATCH_SIZES)

DAMAGED_EVERY = 50
"""Each caller sends a file that is no image before so many of its requests."""

JSON_VALUES = 2**23
"""Pixels that are sent as JSON, at most; that form is large, and slow to read and to write."""

DAMAGED = b"no image"

Ask = Callable[[Client, Examples, range], NDArray[np.float32]]
"""Answers for some of the examples, given by position."""

Spoil = Callable[[Client, Examples], object]
"""Sends what must be refused."""


def server_runs(bundle: Path, examples: Examples) -> dict[str, NDArray[np.float32]]:
    """The answers of the server, in every form in which it can be asked."""
    with serving(bundle, largest=_largest_request(examples)) as server:
        runs = {
            f"pixels, batches of {size}": _ask_all(server, examples, size, _by_pixels)
            for size in BATCH_SIZES
        }
        runs["pixels as JSON"] = _ask_all(server, examples, FEW, _by_json)
        runs[f"files, batches of {FEW}"] = _ask_all(
            server,
            examples,
            FEW,
            _by_files,
            lambda client, examples: client.infer([*_files(examples, range(1)), DAMAGED]),
        )
        runs["files one by one"] = _ask_all(
            server, examples, 1, _by_label, lambda client, _: client.label(DAMAGED, 1)
        )
    return runs


def probabilities_in(answer: dict[str, Any], examples: Examples) -> NDArray[np.float32]:
    """What an answer of `/predict` for one file says of all classes, in the examples' order.

    Raises:
        PathError: it contradicts itself, or knows other classes.
    """
    try:
        (result,) = answer["results"]
        found = {item["label"]: item["probability"] for item in result["top"]}
        probabilities = [found[name] for name in examples.class_names]
        values = np.asarray(probabilities, np.float32)
        _check_ranking(result["top"], examples)
        if examples.thresholds:
            _check_labels(result, values, examples)
        else:
            _check_best(result, values, examples)
    except KeyError as error:
        raise PathError(f"the server's answer knows no {error}") from error
    except (ValueError, TypeError) as error:
        raise PathError(f"the server's answer is not as it should be: {error}") from error
    return values


def _check_ranking(top: list[dict[str, Any]], examples: Examples) -> None:
    if len(top) != len(examples.class_names):
        raise PathError(f"the server named {len(top)} labels, expected {len(examples.class_names)}")
    ranking = [item["probability"] for item in top]
    if ranking != sorted(ranking, reverse=True):
        raise PathError("the server's labels are not ordered by probability")


def _check_best(result: dict[str, Any], values: NDArray[np.float32], examples: Examples) -> None:
    """The label that is named first, and whether it is called uncertain."""
    label, probability = result["label"], result["probability"]
    best = result["top"][0]
    if (label, probability) != (best["label"], best["probability"]):
        raise PathError(f"the server's {label} {probability} contradicts its ranking")
    is_low = examples.threshold is not None and bool(values.max() < examples.threshold)
    if result["uncertain"] != is_low:
        raise PathError(
            f"the server says of {label} {probability} that uncertain is {result['uncertain']}, "
            f"with a threshold of {examples.threshold}"
        )


def _check_labels(result: dict[str, Any], values: NDArray[np.float32], examples: Examples) -> None:
    """The labels that a multi-label model gives, and the thresholds that it names."""
    limits = dict(zip(examples.class_names, examples.thresholds, strict=True))
    for item in (*result["labels"], *result["top"]):
        if item["threshold"] != limits[item["label"]]:
            raise PathError(
                f"the server says that {item['label']} begins at {item['threshold']}, expected "
                f"{limits[item['label']]}"
            )
    given = [(item["label"], item["probability"]) for item in result["labels"]]
    check_label_set("the server's answer", given, values, examples)


def _ask_all(
    server: Server, examples: Examples, size: int, ask: Ask, spoil: Spoil | None = None
) -> NDArray[np.float32]:
    """The answers for all examples, asked for by several callers, `size` in a request.

    Raises:
        PathError: an answer is missing, or no answer to what was asked.
    """
    answers = np.empty(examples.reference.shape, np.float32)
    everything = range(len(answers))
    requests = [everything[start : start + size] for start in everything[::size]]
    callers = CALLERS if size < MOST else 1  # the largest requests fill memory, one is enough

    def call(number: int) -> None:
        with server.client() as client:
            for position, asked in enumerate(requests[number::callers]):
                if spoil and position % DAMAGED_EVERY == 0:
                    _expect_refusal(lambda: spoil(client, examples))
                expected = (len(asked), len(examples.class_names))
                found = ask(client, examples, asked)
                if found.shape != expected:
                    raise PathError(
                        f"expected answers of shape {list(expected)} from the server, got "
                        f"{list(found.shape)}"
                    )
                answers[asked] = found

    with ThreadPoolExecutor(callers) as pool:
        for called in [pool.submit(call, number) for number in range(callers)]:
            called.result()
    return answers


def _expect_refusal(ask: Callable[[], object]) -> None:
    try:
        ask()
    except AnswerError as error:
        if error.status != 422:
            raise
    else:
        raise PathError("the server labelled a file that is no image")


def _by_pixels(client: Client, examples: Examples, asked: range) -> NDArray[np.float32]:
    return client.infer(_pixels(examples, asked))


def _by_json(client: Client, examples: Examples, asked: range) -> NDArray[np.float32]:
    """In turns with the binary form, where all of it would be too much JSON."""
    values = len(examples.rows) * int(np.prod(examples.images.shape[1:]))
    turns = math.ceil(values / JSON_VALUES)
    return client.infer(_pixels(examples, asked), binary=asked.start // FEW % turns != 0)


def _by_files(client: Client, examples: Examples, asked: range) -> NDArray[np.float32]:
    return client.infer(_files(examples, asked))


def _by_label(client: Client, examples: Examples, asked: range) -> NDArray[np.float32]:
    (file,) = _files(examples, asked)
    try:
        answer = client.label(file, len(examples.class_names))
        return probabilities_in(answer, examples)[np.newaxis]
    except PathError as error:
        raise PathError(f"{examples.files[asked.start]}: {error}") from error


def _pixels(examples: Examples, asked: range) -> NDArray[np.uint8]:
    return examples.images[examples.rows[asked]]


def _files(examples: Examples, asked: range) -> list[bytes]:
    return [examples.files[position].read_bytes() for position in asked]


def _largest_request(examples: Examples) -> int:
    """Bytes of a request at most, with room for its head; JSON takes up to 5 for a pixel."""
    pixels = int(np.prod(examples.images.shape[1:]))
    largest_file = max(path.stat().st_size for path in examples.files)
    return 2**20 + max(MOST * pixels, 5 * FEW * pixels, FEW * largest_file)
