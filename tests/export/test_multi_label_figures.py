"""Figures, verdict and comparison of multi-label answers."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from sklearn import metrics

from export.multi_label import average_precision, format_figures, multi_label_figures
from export.multi_label_verdict import judge_multi_label, ranking_test
from export.parity import compare
from export.scoring import binary_cross_entropy, multi_label

NAMES = ("cat", "dog", "owl", "newt")
THRESHOLDS = (0.5, 0.3, 0.7, 0.5)

Truth = NDArray[np.bool_]
Probabilities = NDArray[np.float32]


def answers(
    images: int = 200, skill: float = 1.5, seed: int = 0, *, coarse: bool = False
) -> tuple[Truth, Probabilities]:
    """Truth and probabilities that go with it, the more the greater the skill."""
    random = np.random.default_rng(seed)
    truth = random.random((images, len(NAMES))) < (0.5, 0.3, 0.15, 0.05)
    logits = random.normal(0, 1, truth.shape) + skill * (2 * truth - 1)
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return truth, (probabilities.round(1) if coarse else probabilities)


# Figures


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_figures_are_those_of_scikit_learn(seed: int, coarse: bool) -> None:
    truth, probabilities = answers(seed=seed, coarse=coarse)
    given = probabilities >= np.asarray(THRESHOLDS, np.float32)
    got = multi_label_figures(truth, probabilities, NAMES, THRESHOLDS)
    for average in ("macro", "micro"):
        wanted = metrics.precision_recall_fscore_support(
            truth, given, average=average, zero_division=0
        )[:3]
        shown = [got.headline()[f"{name}_{average}"] for name in ("precision", "recall", "f1")]
        np.testing.assert_allclose(shown, wanted)
    for index, label in enumerate(got.labels):
        wanted = metrics.average_precision_score(truth[:, index], probabilities[:, index])
        assert label.average_precision == pytest.approx(wanted)
        assert (label.positives, label.given) == (truth[:, index].sum(), given[:, index].sum())
    assert got.headline()["average_precision_macro"] == pytest.approx(
        metrics.average_precision_score(truth, probabilities, average="macro")
    )
    assert got.accuracy == pytest.approx(metrics.accuracy_score(truth, given))
    assert got.label_accuracy == pytest.approx(1 - metrics.hamming_loss(truth, given))
    exact = probabilities.astype(np.float64).clip(1e-12, 1 - 1e-12)
    losses = [metrics.log_loss(truth[:, index], exact[:, index]) for index in range(len(NAMES))]
    assert got.loss == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_average_precision_of_few_images(images: int) -> None:
    for bits in range(1, 2**images):
        truth = np.array([bits >> place & 1 for place in range(images)], bool)
        for seed in range(4):
            scores = np.random.default_rng(seed).integers(0, 3, images).astype(np.float32)
            wanted = metrics.average_precision_score(truth, scores)
            assert average_precision(truth, scores) == pytest.approx(wanted)


def test_a_label_that_no_image_has_is_not_tested() -> None:
    truth, probabilities = answers()
    whole = multi_label_figures(truth[:, :3], probabilities[:, :3], NAMES[:3], THRESHOLDS[:3])
    truth[:, 3] = False
    got = multi_label_figures(truth, probabilities, NAMES, THRESHOLDS)
    for name in ("precision_macro", "recall_macro", "f1_macro", "average_precision_macro"):
        assert got.headline()[name] == pytest.approx(whole.headline()[name])
    assert got.headline()["labels_tested"] == 3
    table = format_figures(got).splitlines()
    assert table[4].split() == ["newt", "0", "0.5", "not", "tested"]
    assert table[5].endswith("mean of 3 labels; 1 without an image is not tested")


def test_the_table_has_a_line_for_each_label() -> None:
    truth, probabilities = answers()
    lines = format_figures(multi_label_figures(truth, probabilities, NAMES, THRESHOLDS)).split("\n")
    assert [line.split()[0] for line in lines] == ["label", *NAMES, "macro"]
    assert int(lines[1].split()[1]) == truth[:, 0].sum()


def test_the_cross_entropy_of_certain_answers_is_finite() -> None:
    truth = np.array([[True, False]])
    assert binary_cross_entropy(truth, np.array([[1, 0]], np.float32)) == 0
    wrong = binary_cross_entropy(truth, np.array([[0, 1]], np.float32))
    assert wrong == pytest.approx(-np.log(1e-12))


# The verdict


def verdict(truth: Truth | None, probabilities: Probabilities) -> dict[str, tuple[str, str]]:
    found = judge_multi_label(truth, probabilities, NAMES, THRESHOLDS)
    return {finding.name: (finding.status, finding.text) for finding in found}


def test_a_good_model_is_called_good() -> None:
    found = verdict(*answers(400, 2.5))
    assert {status for status, _ in found.values()} == {"good"}, found
    assert list(found) == [
        "better than guessing", "more than one answer", "every label is found",
        "enough test images",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_chance_is_no_better_than_guessing(seed: int) -> None:
    truth, _ = answers(2000, seed=seed)
    _, probabilities = answers(2000, 0, seed=seed + 100)
    status, text = verdict(truth, probabilities)["better than guessing"]
    assert status == "bad"
    assert "no better than guessing: 'cat', 'dog', 'owl', 'newt'" in text


def test_the_share_of_each_label_for_every_image_is_no_answer() -> None:
    truth, _ = answers(60)
    constant = np.broadcast_to(truth.mean(axis=0), truth.shape).astype(np.float32)
    found = verdict(truth, constant)
    assert found["better than guessing"][0] == "bad"
    assert found["more than one answer"] == ("bad", "all 60 images get the same labels")


def test_few_images_tell_little() -> None:
    truth = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
    found = verdict(truth, (0.1 + 0.8 * truth).astype(np.float32))
    assert found["better than guessing"][0] == "unknown"
    assert found["enough test images"][0] == "unknown"


def test_a_label_that_is_never_given_is_told() -> None:
    truth, probabilities = answers(400, 2.5)
    probabilities[:, 1] *= 0.2
    assert verdict(truth, probabilities)["every label is found"] == (
        "bad",
        f"found on no image that has it: 'dog' (0 of {truth[:, 1].sum()})",
    )
    assert verdict(truth[:3], probabilities[:3])["every label is found"][0] == "unknown"


def test_a_label_that_every_image_gets_is_told() -> None:
    truth, probabilities = answers(400, 2.5)
    probabilities[:, 2] = 0.8 + 0.2 * probabilities[:, 2]
    status, text = verdict(truth, probabilities)["every label is found"]
    assert (status, text) == ("bad", "given to every image: 'owl'")


def test_labels_without_images_are_named() -> None:
    truth, probabilities = answers(400, 2.5)
    truth[:, 3] = False
    status, text = verdict(truth, probabilities)["every label is found"]
    assert (status, text) == ("unknown", "not tested, without an image: 'newt'")


def test_without_truth_only_the_answers_are_looked_at() -> None:
    _, probabilities = answers(50)
    assert verdict(None, probabilities)["more than one answer"][0] == "good"
    alike = np.repeat(probabilities[:1], 50, axis=0)
    assert verdict(None, alike)["more than one answer"][0] == "bad"
    assert verdict(None, alike[:2])["more than one answer"][0] == "unknown"


def test_no_images_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        judge_multi_label(None, np.zeros((0, 4), np.float32), NAMES, THRESHOLDS)


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_test_of_the_ranking_is_that_of_scipy(seed: int, coarse: bool) -> None:
    truth, probabilities = answers(60, 0.15, seed, coarse=coarse)
    for index in range(3):
        has, scores = truth[:, index], probabilities[:, index]
        area, is_better, _ = ranking_test(has, scores)
        wanted = mannwhitneyu(
            scores[has], scores[~has], alternative="greater", use_continuity=False,
            method="asymptotic",
        )  # fmt: skip
        assert area == pytest.approx(metrics.roc_auc_score(has, scores))
        assert is_better == (wanted.pvalue < 0.05)


# The comparison


def compared(reference: Probabilities, answer: Probabilities, truth: Truth | None = None):  # type: ignore[no-untyped-def]
    return compare(reference, {"run": answer}, truth, NAMES, scoring=multi_label(THRESHOLDS))


def test_the_same_answers_pass() -> None:
    truth, probabilities = answers()
    got = compared(probabilities, probabilities.copy(), truth)
    given = probabilities >= np.asarray(THRESHOLDS, np.float32)
    assert got.passed and got.label_agreement == 1
    assert got.accuracy == pytest.approx(metrics.accuracy_score(truth, given))
    assert (got.accuracy_difference, got.loss_difference) == (0, 0)


def test_a_label_on_the_other_side_of_its_threshold_is_counted() -> None:
    reference = np.full((5, 4), 0.1, np.float32)
    answer = reference.copy()
    answer[3, 1] = 0.31
    got = compared(reference, answer)
    assert not got.passed
    assert got.label_agreement == pytest.approx(0.8)
    assert "1 labels differ" in got.reason
    assert (got.worst_example, got.worst_reference[0], got.worst_answer[0]) == (3, "dog", "dog")
    assert got.worst_answer[1] == pytest.approx(0.31)


@pytest.mark.parametrize(("distance", "agree"), [(4e-5, True), (3e-4, False)])
def test_a_reference_on_the_threshold_may_fall_either_way(distance: float, agree: bool) -> None:
    reference = np.full((2, 4), 0.1, np.float32)
    reference[0, 1] = THRESHOLDS[1] + distance
    answer = reference.copy()
    answer[0, 1] = THRESHOLDS[1] - 4e-5
    assert compared(reference, answer).label_agreement == (1 if agree else 0.5)


def test_one_undecided_label_excuses_no_other() -> None:
    reference = np.array([[0.5, 0.1, 0.1, 0.1]], np.float32)
    answer = np.array([[0.49999, 0.4, 0.1, 0.1]], np.float32)
    assert compared(reference, answer).label_agreement == 0


def test_what_is_no_number_fails() -> None:
    reference = np.full((3, 4), 0.1, np.float32)
    answer = reference.copy()
    answer[1, 2] = np.nan
    got = compared(reference, answer)
    assert not got.passed and got.worst_example == 1
    assert "not finite" in got.reason


def test_the_figures_warn_of_nothing() -> None:
    truth, probabilities = answers(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        multi_label_figures(truth & False, probabilities, NAMES, THRESHOLDS).headline()
