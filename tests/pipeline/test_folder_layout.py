"""How folders are understood: splits by many names, wrappers, and what is refused."""

import pytest

from pipeline.data.sources.folder_layout import LayoutError, Tree, understand
from pipeline.data.sources.split_names import splits_by_name


def tree(folders: dict[str, int]) -> Tree:
    return Tree.of(
        (*(part for part in folder.split("/") if part), f"{number}.png")
        for folder, count in folders.items()
        for number in range(count)
    )


def parents(folders: dict[str, int]) -> dict[str, str | None]:
    return {"/".join(place): split for place, split in understand(tree(folders)).parents.items()}


def classes(*parents: str) -> dict[str, int]:
    return {f"{parent}/{name}": 2 for parent in parents for name in ("cat", "dog")}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"),
        ("training_set", "test_set", "test"),
        ("training-set", "Test Set", "test"),
        ("TrainingSet", "TestSet", "test"),
        ("train", "testing", "test"),
        ("Train", "Valid", "validation"),
        ("TRAIN", "VALIDATION_DATA", "validation"),
        ("train_images", "val_images", "validation"),
        ("train2017", "val2017", "validation"),
        ("01_train", "02_dev", "validation"),
        ("train", "eval", "test"),
        ("train", "hold-out", "test"),
        ("seg_train", "seg_test", "test"),
        ("trainset", "testset", "test"),
    ],
)
def test_splits_have_many_names(train: str, other: str, split: str) -> None:
    assert parents(classes(train, other)) == {train: "train", other: split}


@pytest.mark.parametrize("name", ["trains", "protest", "contest", "valley", "device", "invalid"])
def test_words_that_only_contain_a_split_are_none(name: str) -> None:
    assert splits_by_name([name]) == {}


def test_evaluation_is_for_validation_beside_a_test() -> None:
    assert splits_by_name(["train", "eval", "test"])["eval"] == "validation"


@pytest.mark.parametrize("beside", [{}, {"docs": 4}, {"sample_images": 1}, {"__screenshots": 9}])
@pytest.mark.parametrize("wrapper", ["dataset", "PetImages", "archive/photos"])
def test_a_folder_around_classes_or_splits_is_looked_through(
    wrapper: str, beside: dict[str, int]
) -> None:
    assert parents({**classes(wrapper), **beside}) == {wrapper: None}
    assert parents({**classes(f"{wrapper}/train", f"{wrapper}/Test"), **beside}) == {
        f"{wrapper}/train": "train",
        f"{wrapper}/Test": "test",
    }


def test_a_split_within_a_folder_of_its_own_name() -> None:
    found = parents({**classes("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/x": 3})
    assert found == {"seg_train/seg_train": "train", "seg_test/seg_test": "test"}


@pytest.mark.parametrize(
    "folders",
    [
        {"bus": 2, "car": 2, "train": 2},
        {"control": 2, "test": 2},
        {"dev": 2, "ops": 2, "test": 2},
        {"cat/2024": 2, "dog/2024": 2},
        {"n01/images": 2, "n02/images": 2},
        {"animals/cat": 2, "animals/dog": 2, "cars/bus": 2, "cars/van": 2},
        {"docs": 2, "photos": 2, "screenshots": 2},
    ],
)
def test_classes_stay_classes(folders: dict[str, int]) -> None:
    assert parents(folders) == {"": None}


def test_a_class_called_train_within_splits() -> None:
    found = parents({"train/bus": 2, "train/train": 2, "test/train": 2})
    assert found == {"train": "train", "test": "test"}


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (classes("part1", "part2"), "part1/, part2/ hold the same subfolders .*name them train/"),
        (classes("Fold A", "Fold B", "Fold C"), "hold the same subfolders"),
        (
            {**classes("part1"), "part2/Cat": 1, "part2/DOG": 1},
            "hold the same subfolders",
        ),
        ({"cat/train": 2, "cat/test": 2, "dog/train": 2, "dog/test": 2}, "train/CLASS"),
        (classes("train", "test", "extra"), "both or half of it: extra/, test/, train/"),
        ({**classes("train"), "bus": 2}, "both or half of it: bus/, train/"),
        (classes("val", "test"), "got test/, val/ without images to train on"),
        ({"train": 4, "test": 2}, "train/: holds images, but no subfolders"),
        ({"cat/indoors": 2, "cat/outdoors": 2, "dog": 2}, "cat/ holds only subfolders"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(folders: dict[str, int], reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        understand(tree(folders))


def test_how_it_was_understood_is_said() -> None:
    layout = understand(tree({**classes("dataset/Training", "dataset/Testing"), "docs": 3}))
    assert layout.notes == (
        "the classes lie in dataset/",
        "splits by folder: Testing/ → test, Training/ → train",
    )
