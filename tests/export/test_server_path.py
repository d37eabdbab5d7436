"""What the proof believes of the server's answers."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from export.examples import Examples, PathError
from export.server_path import probabilities_in


def good_answer() -> dict[str, Any]:
    top = [("dog", 0.7), ("cat", 0.2), ("owl", 0.1)]
    ranked = [{"label": label, "probability": probability} for label, probability in top]
    return {"results": [{"name": None, **ranked[0], "top": ranked, "uncertain": False}]}


def examples(threshold: float | None = None) -> Examples:
    """Nothing but the names of the classes, and a threshold."""
    nothing = np.empty((0, 3), np.float32)
    empty = np.empty((0, 8, 8, 1), np.uint8)
    rows = np.empty(0, np.int64)
    return Examples(empty, rows, None, [], nothing, ("cat", "dog", "owl"), threshold)


def test_an_answer_is_put_in_the_order_of_the_classes() -> None:
    found = probabilities_in(good_answer(), examples())
    assert found.dtype == np.float32
    assert found.tolist() == np.array([0.2, 0.7, 0.1], np.float32).tolist()


@pytest.mark.parametrize(("threshold", "uncertain"), [(0.69, False), (0.71, True)])
def test_an_answer_is_uncertain_below_the_threshold(threshold: float, uncertain: bool) -> None:
    answer = good_answer()
    answer["results"][0]["uncertain"] = uncertain
    probabilities_in(answer, examples(threshold))
    answer["results"][0]["uncertain"] = not uncertain
    message = f"uncertain is {not uncertain}, with a threshold of {threshold}"
    with pytest.raises(PathError, match=message):
        probabilities_in(answer, examples(threshold))


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer.clear(), "knows no 'results'"),
        (lambda answer: answer["results"].clear(), "is not as it should be"),
        (lambda answer: answer["results"].append({}), "is not as it should be"),
        (lambda answer: answer.update(results=None), "is not as it should be"),
        (lambda answer: answer["results"][0].update(top=7), "is not as it should be"),
        (lambda answer: answer["results"][0]["top"].pop(), "knows no 'owl'"),
        (lambda answer: answer["results"][0]["top"][2].update(label="elk"), "knows no 'owl'"),
        (
            lambda answer: answer["results"][0]["top"].append({"label": "elk", "probability": 0.0}),
            "named 4 labels, expected 3",
        ),
        (lambda answer: answer["results"][0]["top"].reverse(), "not ordered by probability"),
        (lambda answer: answer["results"][0].update(label="cat"), "cat 0.7 contradicts"),
        (lambda answer: answer["results"][0].update(probability=0.6), "dog 0.6 contradicts"),
        (
            lambda answer: answer["results"][0]["top"][1].update(probability="much"),
            "is not as it should be",
        ),
    ],
)
def test_an_answer_that_is_not_as_it_should_be(change: Change, message: str) -> None:
    answer = copy.deepcopy(good_answer())
    change(answer)
    with pytest.raises(PathError, match=message):
        probabilities_in(answer, examples())
