"""Which example serves for what: shares, strata, given splits, and classes that are too small."""

import numpy as np
import pytest

from pipeline.data.splits import SplitError, assign_splits

LABELS = np.array([0] * 100 + [1] * 50 + [2] * 10)
NAMES = ("apple", "birch", "cedar")


def split(labels=LABELS, given=None, names=NAMES, validation=0.1, test=0.2, seed=0):
    return assign_splits(
        np.asarray(labels, np.int64),
        given or [None] * len(labels),
        names,
        validation_share=validation,
        test_share=test,
        seed=seed,
    )


def class_counts(splits, labels=LABELS):
    return {name: np.bincount(labels[indices]).tolist() for name, indices in splits.items()}


def assert_disjoint_and_complete(splits, count):
    together = np.concatenate(list(splits.values()))
    assert sorted(together.tolist()) == list(range(count))
    for indices in splits.values():
        assert indices.tolist() == sorted(indices.tolist())


def test_every_class_has_its_share_in_every_split():
    splits = split()
    assert list(splits) == ["train", "validation", "test"]
    # 20 % of each class to the test, then 10 % of the rest to validation, at least one.
    assert class_counts(splits) == {
        "train": [72, 36, 7],
        "validation": [8, 4, 1],
        "test": [20, 10, 2],
    }


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
@pytest.mark.parametrize("shares", [(0.1, 0.2), (0.5, 0.5), (0.001, 0.001), (0.3, 0.05)])
def test_splits_are_disjoint_and_complete(seed, shares):
    splits = split(validation=shares[0], test=shares[1], seed=seed)
    assert_disjoint_and_complete(splits, len(LABELS))
    assert all(len(np.unique(LABELS[indices])) == 3 for indices in splits.values())


def test_the_seed_decides_and_nothing_else():
    one, same, other = split(seed=7), split(seed=7), split(seed=8)
    for name in one:
        assert one[name].tolist() == same[name].tolist()
        assert one[name].tolist() != other[name].tolist()


def test_the_drawn_examples_do_not_follow_the_order_of_the_labels():
    assert split()["test"].tolist()[:20] != list(range(20))


def test_the_labels_may_come_in_any_order():
    order = np.random.default_rng(3).permutation(len(LABELS))
    splits = split(LABELS[order])
    assert class_counts(splits, LABELS[order]) == class_counts(split())
    assert_disjoint_and_complete(splits, len(LABELS))


def test_complete_splits_of_the_source_are_kept():
    given = ["test", "train", "validation", "train", "test", "train"]
    splits = split([0, 0, 0, 1, 1, 1], given, NAMES[:2])
    assert {name: indices.tolist() for name, indices in splits.items()} == {
        "train": [1, 3, 5],
        "validation": [2],
        "test": [0, 4],
    }


def test_a_missing_validation_split_is_drawn_from_train_alone():
    given = ["train"] * 130 + ["test"] * 30
    splits = split(np.arange(160) % 2, given, NAMES[:2])
    assert splits["test"].tolist() == list(range(130, 160))
    assert len(splits["validation"]) == 12  # 10 % of 65, rounded to 6, of each of two classes
    assert_disjoint_and_complete(splits, 160)


def test_a_missing_test_split_is_drawn_from_train_alone():
    given = ["train"] * 130 + ["validation"] * 30
    splits = split(np.arange(160) % 2, given, NAMES[:2])
    assert splits["validation"].tolist() == list(range(130, 160))
    assert len(splits["test"]) == 26  # 20 % of 65 of each of two classes
    assert_disjoint_and_complete(splits, 160)


def test_three_images_are_enough_for_a_class():
    assert class_counts(
        split([0, 0, 0, 1, 1, 1], names=NAMES[:2]), np.array([0, 0, 0, 1, 1, 1])
    ) == {
        "train": [1, 1],
        "validation": [1, 1],
        "test": [1, 1],
    }


@pytest.mark.parametrize("count", [1, 2])
def test_the_class_with_too_few_images_is_named(count):
    with pytest.raises(SplitError) as caught:
        split([0] * 9 + [1] * count + [2] * 9)
    assert str(caught.value) == (
        f"class 'birch' has too few images: {count}, and none is left to train on; expected at "
        "least 3 in each class (train, validation, test): add images or remove the class"
    )


def test_a_class_without_any_image_is_named():
    with pytest.raises(SplitError, match=r"^class 'cedar' has too few images: 0"):
        split([0] * 9 + [1] * 9)


def test_a_class_that_only_the_test_split_has_is_named():
    given = ["train"] * 18 + ["test"] * 4
    with pytest.raises(SplitError, match=r"^class 'cedar' has too few images: 4, and none is left"):
        split([0] * 9 + [1] * 9 + [2] * 4, given)


def test_a_training_split_without_images_is_an_error_and_no_crash():
    with pytest.raises(SplitError, match=r"^class 'apple' has too few images: 2, and none is left"):
        split([0, 1, 2] * 2, ["test"] * 6)
