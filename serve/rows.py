"""A prediction as a row of CSV or of JSON lines."""

import csv
import dataclasses
import json
from collections.abc import Sequence
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

UNCERTAIN = "uncertain"
"""The label of an answer that is less probable than the threshold."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer for one input: float32 `[classes]`, or the reason why there is none."""

    path: str
    probabilities: NDArray[np.float32] | None
    error: str = ""


class _Writer:
    """What both formats are told."""

    def __init__(
        self,
        stream: TextIO,
        class_names: Sequence[str],
        *,
        top: int,
        all_probabilities: bool,
        threshold: float | None = None,
    ) -> None:
        self._stream = stream
        self._class_names = class_names
        self._top = top
        self._all = all_probabilities
        self._threshold = threshold
        self._begin()

    def _begin(self) -> None:
        """Write what stands above the rows."""


class CsvWriter(_Writer):
    """Columns `path, label, probability, error`; with `top` > 1 also `label_2, probability_2, …`;
    with `all_probabilities` also one column `p(CLASS)` for each class. Where the best probability
    is below `threshold`, the label is `uncertain`."""

    def _begin(self) -> None:
        self._rows = csv.writer(self._stream, lineterminator="\n")
        header = ["path", "label", "probability", "error"]
        for rank in range(2, self._top + 1):
            header += [f"label_{rank}", f"probability_{rank}"]
        if self._all:
            header += [f"p({name})" for name in self._class_names]
        self._width = len(header)
        self._rows.writerow(header)

    def write(self, prediction: Prediction) -> None:
        if prediction.probabilities is None:
            row = [prediction.path, "", "", prediction.error]
            self._rows.writerow(row + [""] * (self._width - len(row)))
            return
        best = top_labels(prediction.probabilities, self._class_names, self._top)
        label = UNCERTAIN if _is_uncertain(best[0][1], self._threshold) else best[0][0]
        row = [prediction.path, label, digits(best[0][1]), ""]
        for label, probability in best[1:]:
            row += [label, digits(probability)]
        if self._all:
            row += [digits(value) for value in prediction.probabilities]
        self._rows.writerow(row)


class JsonLinesWriter(_Writer):
    """One object per line: `path`, `predictions` (best first), `error` (null where it went well),
    with `all_probabilities` a mapping `probabilities` by class name, and with a `threshold`
    `uncertain`: whether the best probability is below it."""

    def write(self, prediction: Prediction) -> None:
        row: dict[str, object] = {"path": prediction.path, "predictions": [], "error": None}
        if prediction.probabilities is None:
            row["error"] = prediction.error
        else:
            best = top_labels(prediction.probabilities, self._class_names, self._top)
            row["predictions"] = [
                {"label": label, "probability": float(digits(value))} for label, value in best
            ]
            if self._threshold is not None:
                row["uncertain"] = _is_uncertain(best[0][1], self._threshold)
            if self._all:
                values = (float(digits(value)) for value in prediction.probabilities)
                row["probabilities"] = dict(zip(self._class_names, values, strict=True))
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")


WRITERS: dict[str, type[CsvWriter] | type[JsonLinesWriter]] = {
    "csv": CsvWriter,
    "jsonl": JsonLinesWriter,
}


def top_labels(
    probabilities: NDArray[np.float32], class_names: Sequence[str], count: int
) -> list[tuple[str, np.float32]]:
    """The `count` likeliest classes of one row `[classes]`, best first; ties keep class order."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return [(class_names[index], probabilities[index]) for index in order]


def _is_uncertain(probability: np.float32, threshold: float | None) -> bool:
    return threshold is not None and not bool(probability >= threshold)


def digits(value: np.float32) -> str:
    """The shortest decimal number that reads back as the same float32."""
    return np.format_float_positional(value, unique=True, trim="0")
