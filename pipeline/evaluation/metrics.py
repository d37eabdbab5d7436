"""Classification figures: pure functions of labels and probabilities.

Precision, recall and F1 come from the confusion matrix, as in scikit-learn with
`zero_division=0`; a test holds them to it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.figures import cross_entropy
from export.intervals import wilson_interval


def classification_figures(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], class_names: list[str]
) -> dict[str, Any]:
    """The figures of metrics.json that labels and probabilities give.

    A class without images in `labels` is not tested: its figures are None, and the macro figures
    are means over the `classes_tested` others.

    Args:
        labels: int64 `[examples]`.
        probabilities: float32 `[examples, classes]`, rows sum to 1.
    """
    classes = len(class_names)
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted, classes)
    correct = int(np.trace(matrix))
    figures: dict[str, Any] = {
        "examples": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_interval": list(wilson_interval(correct, len(labels))),
        "loss": cross_entropy(labels, probabilities),
    }
    for k in (2, 3, 5):
        if k < classes:
            figures[f"top_{k}_accuracy"] = top_k_accuracy(labels, probabilities, k)
    precision, recall, f1 = precision_recall_f1(matrix)
    support = matrix.sum(axis=1)
    tested = support > 0
    figures["classes_tested"] = int(tested.sum())
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        figures[f"{name}_macro"] = float(values[tested].mean())
        figures[f"{name}_weighted"] = float(np.average(values, weights=support))
    figures["per_class"] = {
        class_name: {
            "precision": float(precision[index]) if tested[index] else None,
            "recall": float(recall[index]) if tested[index] else None,
            "f1": float(f1[index]) if tested[index] else None,
            "examples": int(support[index]),
        }
        for index, class_name in enumerate(class_names)
    }
    figures["confusion_matrix"] = matrix.tolist()
    figures["class_names"] = class_names
    return figures


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """int64 `[classes, classes]`: row the true class, column the predicted one."""
    pairs = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return pairs.reshape(classes, classes)


def precision_recall_f1(
    matrix: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Figures `[classes]` of a confusion matrix; 0 where there is nothing to divide by."""
    hits = np.diagonal(matrix)
    predicted, actual = matrix.sum(axis=0), matrix.sum(axis=1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(actual, 1)
    f1 = 2 * hits / np.maximum(predicted + actual, 1)
    return precision, recall, f1


def top_k_accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float32], k: int) -> float:
    """Share of examples whose class is among the `k` likeliest; ties go to the lower class."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())
