"""A multi-label prediction as a row of CSV or of JSON lines."""

import csv
import json
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from serve.label_list import join_labels
from serve.multi_label import labels_of
from serve.rows import Prediction, digits, top_labels


class _Writer:
    """What both formats are told.

    Args:
        thresholds: for each label the smallest probability at which an image has it.
        top: so many of the most probable labels besides, whether the image has them or not.
        all_probabilities: the probability of every label besides.
    """

    def __init__(
        self,
        stream: TextIO,
        class_names: Sequence[str],
        thresholds: Sequence[float],
        *,
        top: int = 0,
        all_probabilities: bool = False,
    ) -> None:
        self._stream = stream
        self._class_names = class_names
        self._thresholds = thresholds
        self._top = top
        self._all = all_probabilities
        self._begin()

    def _begin(self) -> None:
        """Write what stands above the rows."""


class MultiLabelCsvWriter(_Writer):
    """Columns `path, labels, probabilities, error`: the labels of the image, most probable first,
    as `cat|dog` (`serve.label_list`), and their probabilities as `0.98|0.71`. With `top` also
    `label_1, probability_1, …`; with `all_probabilities` one column `p(LABEL)` for each label."""

    def _begin(self) -> None:
        self._rows = csv.writer(self._stream, lineterminator="\n")
        header = ["path", "labels", "probabilities", "error"]
        for rank in range(1, self._top + 1):
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
        given = labels_of(prediction.probabilities, self._class_names, self._thresholds)
        names = join_labels(name for name, _ in given)
        row = [prediction.path, names, "|".join(digits(value) for _, value in given), ""]
        for name, value in top_labels(prediction.probabilities, self._class_names, self._top):
            row += [name, digits(value)]
        if self._all:
            row += [digits(value) for value in prediction.probabilities]
        self._rows.writerow(row)


class MultiLabelJsonLinesWriter(_Writer):
    """One object per line: `path`, `labels` (those of the image, most probable first; empty where
    it has none), `error` (null where it went well); with `top` also `predictions`, the most
    probable labels whether the image has them or not; with `all_probabilities` a mapping
    `probabilities` by label."""

    def write(self, prediction: Prediction) -> None:
        row: dict[str, object] = {"path": prediction.path, "labels": [], "error": None}
        if prediction.probabilities is None:
            row["error"] = prediction.error
        else:
            given = labels_of(prediction.probabilities, self._class_names, self._thresholds)
            row["labels"] = _listed(given)
            if self._top:
                best = top_labels(prediction.probabilities, self._class_names, self._top)
                row["predictions"] = _listed(best)
            if self._all:
                values = (float(digits(value)) for value in prediction.probabilities)
                row["probabilities"] = dict(zip(self._class_names, values, strict=True))
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _listed(labels: Sequence[tuple[str, np.float32]]) -> list[dict[str, object]]:
    return [{"label": name, "probability": float(digits(value))} for name, value in labels]


MULTI_LABEL_WRITERS: dict[str, type[MultiLabelCsvWriter] | type[MultiLabelJsonLinesWriter]] = {
    "csv": MultiLabelCsvWriter,
    "jsonl": MultiLabelJsonLinesWriter,
}
