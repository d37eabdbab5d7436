"""The verdict: useless models are told from good ones, and few images from many."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.verdict import judge
from serve.bundle import STATUSES

Labels = NDArray[np.int64]
BETTER, SEVERAL, FOUND = (
    "better than the commonest class",
    "more than one answer",
    "every class is found",
)
ENOUGH, CHOSEN_BY, CALIBRATED = "enough test images", "enough validation images", "calibrated"


def answers(given: Labels, classes: int, confidence: float = 0.9) -> NDArray[np.float32]:
    """Probabilities `[examples, classes]` that answer `given`, each as sure as the others."""
    rest = (1 - confidence) / (classes - 1)
    probabilities = np.full((len(given), classes), rest, np.float32)
    probabilities[np.arange(len(given)), given] = confidence
    return probabilities


def names(classes: int) -> list[str]:
    return [f"class {number}" for number in range(classes)]


def statuses(
    labels: Labels | None, probabilities: NDArray[np.float32], validation: int | None = None
) -> dict[str, str]:
    found = judge(
        labels,
        probabilities,
        names(probabilities.shape[1]),
        validation_examples=validation,
    )
    assert len({finding.name for finding in found}) == len(found)
    for finding in found:
        assert finding.status in STATUSES
        assert "\n" not in finding.text
    return {finding.name: finding.status for finding in found}


def text(labels: Labels | None, probabilities: NDArray[np.float32], name: str) -> str:
    found = judge(labels, probabilities, names(probabilities.shape[1]), validation_examples=26)
    return next(finding.text for finding in found if finding.name == name)


def wrong_now_and_then(labels: Labels, classes: int, every: int) -> Labels:
    given = labels.copy()
    given[::every] = (given[::every] + 1) % classes
    return given


def test_a_good_model_on_many_images_is_good_in_every_respect() -> None:
    labels = np.arange(1000) % 5
    given = answers(wrong_now_and_then(labels, 5, every=50), 5, confidence=0.98)
    assert set(statuses(labels, given, 500).values()) == {"good"}
    assert text(labels, given, BETTER) == (
        "accuracy 0.980 is better than 0.200 for always answering 'class 0', the commonest class: "
        "difference +78.0 points (95 % interval +74.9 to +80.6) on 1,000 images"
    )


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [20, 2000])
def test_one_answer_for_everything_is_bad(share: float, count: int) -> None:
    labels = (np.arange(count) >= min(share * count, count - 1)).astype(np.int64)
    found = statuses(labels, answers(np.zeros(count, np.int64), 2))
    assert found[BETTER] == found[SEVERAL] == "bad"
    # Of a single image nobody knows whether the next one would be recognized.
    assert found[FOUND] == ("bad" if (labels == 1).sum() >= 4 else "unknown")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_answers_by_chance_are_never_better_than_the_commonest_class(
    classes: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 3000)
    assert statuses(labels, answers(generator.permutation(labels), classes))[BETTER] == "bad"


def test_the_share_of_the_commonest_class_is_no_achievement() -> None:
    """90 % accuracy where 90 % of the images are of one class, and several answers occur."""
    labels = (np.arange(1000) % 10 == 0).astype(np.int64)
    given = np.roll(labels, 1)  # as many of both, all in the wrong places
    given[labels == 1] = np.arange(100) % 2
    assert (given == labels).mean() < 0.9
    found = statuses(labels, answers(given, 2))
    assert (found[BETTER], found[SEVERAL]) == ("bad", "good")


def test_a_little_better_on_few_images_is_not_decided() -> None:
    labels = np.arange(40) % 2
    found = statuses(labels, answers(wrong_now_and_then(labels, 2, every=3), 2))
    assert found[BETTER] == "unknown"
    many = np.arange(4000) % 2
    assert statuses(many, answers(wrong_now_and_then(many, 2, every=3), 2))[BETTER] == "good"


def test_a_gain_that_is_sure_but_saves_next_to_nothing_is_told_by_its_interval() -> None:
    """51 % right of two classes: not yet better on 3,000 images, and at best not by much."""
    labels = np.arange(3000) % 2
    given = labels.copy()
    given[:1470] = 1 - given[:1470]
    found = statuses(labels, answers(given, 2))
    assert found[BETTER] == "bad"
    assert "no better than 0.500" in text(labels, answers(given, 2), BETTER)


def test_images_of_one_class_decide_nothing() -> None:
    labels = np.ones(50, np.int64)
    found = statuses(labels, answers(labels, 3))
    assert found[BETTER] == found[SEVERAL] == found[FOUND] == "unknown"
    assert text(labels, answers(labels, 3), FOUND) == (
        "not tested, without an image: 'class 0', 'class 2'"
    )


@pytest.mark.parametrize(("images", "status"), [(1, "unknown"), (3, "unknown"), (4, "bad")])
def test_a_class_that_is_never_recognized_is_named_with_its_images(
    images: int, status: str
) -> None:
    labels = np.concatenate([np.arange(200) % 2, np.full(images, 2)])
    given = answers(labels % 2, 3)
    assert statuses(labels, given)[FOUND] == status
    assert f"'class 2' (0 of {images})" in text(labels, given, FOUND)


def test_many_classes_are_counted_and_not_all_listed() -> None:
    labels = np.arange(400) % 2
    found = text(labels, answers(labels, 40), FOUND)
    assert "'class 2', 'class 3'" in found
    assert found.endswith("and 28 more")


@pytest.mark.parametrize(("count", "status"), [(1, "unknown"), (34, "unknown"), (35, "good")])
def test_test_images_are_enough_once_the_accuracy_is_known_within_ten_points(
    count: int, status: str
) -> None:
    labels = np.arange(count) % 2
    assert statuses(labels, answers(labels, 2))[ENOUGH] == status


@pytest.mark.parametrize(
    ("count", "status"), [(0, "unknown"), (26, "unknown"), (99, "unknown"), (100, "good")]
)
def test_validation_images_are_enough_once_one_is_a_point(count: int, status: str) -> None:
    labels = np.arange(400) % 2
    assert statuses(labels, answers(labels, 2), count)[CHOSEN_BY] == status
    assert CHOSEN_BY not in statuses(labels, answers(labels, 2), None)


def test_the_weight_of_one_validation_image_is_said() -> None:
    labels = np.arange(400) % 2
    assert text(labels, answers(labels, 2), CHOSEN_BY).startswith(
        "26 validation images: one of them is 3.8 points"
    )


@pytest.mark.parametrize(
    ("confidence", "every", "count", "status"),
    [
        (0.9, 10, 3000, "good"),
        (0.99, 3, 3000, "bad"),  # overconfident
        (0.6, 100, 3000, "bad"),  # underconfident
        (0.9, 10, 30, "unknown"),
        (0.999, 10**6, 10, "unknown"),  # all ten right, and very sure of it
        (0.99, 2, 30, "bad"),  # few images, but that far off
    ],
)
def test_calibration(confidence: float, every: int, count: int, status: str) -> None:
    labels = np.arange(count) % 4
    given = wrong_now_and_then(labels, 4, every) if every < 10**6 else labels
    assert statuses(labels, answers(given, 4, confidence))[CALIBRATED] == status


def test_a_calibrated_model_is_rarely_called_anything_else() -> None:
    """On 60 images its calibration error is often above 5 %; the test knows how often."""
    generator = np.random.default_rng(3)
    found = []
    for _ in range(100):
        confidence = generator.uniform(0.5, 1, 60)
        probabilities = np.stack([confidence, 1 - confidence], axis=1).astype(np.float32)
        labels = (generator.random(60) > confidence).astype(np.int64)
        found.append(statuses(labels, probabilities)[CALIBRATED])
    assert found.count("bad") <= 10
    assert found.count("good") <= 5


@pytest.mark.parametrize(
    ("classes", "count", "status"),
    [(2, 5, "unknown"), (2, 6, "bad"), (10, 2, "unknown"), (10, 3, "bad"), (10, 500, "bad")],
)
def test_without_labels_only_the_answers_are_judged(classes: int, count: int, status: str) -> None:
    """As few images of a balanced set may well be of one class."""
    one = answers(np.zeros(count, np.int64), classes)
    assert statuses(None, one) == {SEVERAL: status}
    assert statuses(None, answers(np.arange(count) % 2, classes)) == {SEVERAL: "good"}


def test_no_image_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        judge(np.empty(0, np.int64), np.empty((0, 2), np.float32), names(2))
