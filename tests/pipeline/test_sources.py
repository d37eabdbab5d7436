"""Where images come from: what each source yields, and how it refuses what it cannot use."""

import gzip
import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline.data.sources import Source, SourceError, identity, open_source, same
from pipeline.data.sources.fashion_mnist import DIRECTORY, read_idx
from serve.image_spec import ImageSpec
from serve.images import read_image

EXPECTED = "digits, fashion-mnist, folder:PATH, npz:PATH, tfds:NAME"


def message_of(data: str) -> str:
    with pytest.raises(SourceError) as caught:
        open_source(data)
    return str(caught.value)


def listed(source: Source) -> list[tuple[str, str, str | None]]:
    """Name, class and split of every example."""
    return [
        (example.name, source.class_names[example.label], example.split)
        for example in source.examples()
    ]


@pytest.mark.parametrize("call", [open_source, identity])
@pytest.mark.parametrize(
    "data", ["mnist", "folder", "folder:", "npz", "tfds:", "digits:x", "", ":x", "Digits"]
)
def test_data_that_name_no_source_list_those_there_are(data, call):
    with pytest.raises(SourceError) as caught:
        call(data)
    assert str(caught.value) == f"data: expected one of {EXPECTED}; got {data!r}"


# Digits


def test_the_digits():
    source = open_source("digits")
    assert source.class_names == tuple("0123456789")
    assert (source.count, source.image_size, source.channels) == (1797, (8, 8), 1)
    assert source.ignored == ()
    examples = list(source.examples())
    images = np.stack([example.image for example in examples])
    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert len(np.unique(images)) == 17
    assert np.bincount([example.label for example in examples]).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180
    ]  # fmt: skip
    assert {example.split for example in examples} == {None}
    assert len({example.name for example in examples}) == 1797


def test_a_source_can_be_gone_through_twice():
    source = open_source("digits")
    for one, other in zip(source.examples(), source.examples(), strict=True):
        assert (one.name, one.label) == (other.name, other.label)
        np.testing.assert_array_equal(one.image, other.image)


# Fashion-MNIST


@pytest.fixture(scope="module")
def fashion_mnist() -> Source:
    if not DIRECTORY.is_dir():
        reason = f"needs {DIRECTORY}: install Debian's package dataset-fashion-mnist"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return open_source("fashion-mnist")


def test_fashion_mnist_comes_with_its_splits(fashion_mnist):
    assert (fashion_mnist.count, fashion_mnist.image_size, fashion_mnist.channels) == (
        70_000,
        (28, 28),
        1,
    )
    counts = np.zeros((2, 10), int)
    for example in fashion_mnist.examples():
        counts[("train", "test").index(example.split), example.label] += 1
    assert counts.tolist() == [[6000] * 10, [1000] * 10]


def test_the_first_image_of_fashion_mnist_is_an_ankle_boot(fashion_mnist):
    first = next(fashion_mnist.examples())
    assert (first.name, first.split) == ("train/00000", "train")
    assert fashion_mnist.class_names[first.label] == "Ankle boot"
    assert (first.image.shape, first.image.dtype) == ((28, 28), np.uint8)
    assert int(first.image.sum()) == 76247


IDX = b"\0\0\x08\x02" + b"\0\0\0\x02" + b"\0\0\0\x03" + bytes(range(6))


NO_IDX = "expected an idx file of unsigned bytes"


def test_an_idx_file_is_read_by_its_header(tmp_path):
    (tmp_path / "good.gz").write_bytes(gzip.compress(IDX))
    assert read_idx(tmp_path / "good.gz").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(gzip.compress(IDX)[:-9], "damaged gzip file", id="cut off"),
        pytest.param(b"no gzip at all", "damaged gzip file", id="no gzip"),
        pytest.param(gzip.compress(IDX[:-1]), r"expected \(.*\) values, got 5", id="too short"),
        pytest.param(gzip.compress(IDX + b"x"), r"expected \(.*\) values, got 7", id="too long"),
        pytest.param(gzip.compress(b"\0\0\x0d" + IDX[3:]), NO_IDX, id="floats"),
        pytest.param(gzip.compress(IDX[:6]), NO_IDX, id="half of the sizes"),
        pytest.param(gzip.compress(IDX[:3]), NO_IDX, id="three bytes"),
        pytest.param(gzip.compress(b""), NO_IDX, id="empty"),
    ],
)
def test_a_damaged_idx_file_is_refused(tmp_path, content, reason):
    (tmp_path / "bad.gz").write_bytes(content)
    with pytest.raises(SourceError, match=rf"bad\.gz: {reason}"):
        read_idx(tmp_path / "bad.gz")


# Folder


def test_one_folder_per_class(make_photos):
    root = make_photos({"dog": 1, "cat": 2})
    source = open_source(f"folder:{root}")
    assert source.class_names == ("cat", "dog")
    assert (source.count, source.image_size, source.channels) == (3, None, None)
    assert listed(source) == [
        ("cat/00.png", "cat", None),
        ("cat/01.png", "cat", None),
        ("dog/00.png", "dog", None),
    ]
    assert [example.image for example in source.examples()] == sorted(root.rglob("*.png"))


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("val", "validation"),
        ("valid", "validation"),
        ("validation", "validation"),
        ("test", "test"),
    ],
)
def test_split_folders_above_the_class_folders(make_photos, folder, split):
    root = make_photos({"train/cat": 1, "train/dog": 1, f"{folder}/dog": 1})
    source = open_source(f"folder:{root}")
    assert source.class_names == ("cat", "dog")
    assert len(listed(source)) == 3
    assert set(listed(source)) == {
        (f"{folder}/dog/00.png", "dog", split),
        ("train/cat/00.png", "cat", "train"),
        ("train/dog/00.png", "dog", "train"),
    }


def test_both_names_of_one_split_are_one_split(make_photos):
    root = make_photos({"training/cat": 1, "train/dog": 1, "val/cat": 1, "valid/dog": 1})
    splits = [split for _, _, split in listed(open_source(f"folder:{root}"))]
    assert sorted(splits) == ["train", "train", "validation", "validation"]


def test_a_class_that_only_the_test_folder_has_is_a_class(make_photos):
    root = make_photos({"train/cat": 1, "train/dog": 1, "test/emu": 1})
    assert open_source(f"folder:{root}").class_names == ("cat", "dog", "emu")


def test_a_class_named_like_a_split_among_other_classes_is_a_class(make_photos):
    root = make_photos({"bus": 1, "car": 1, "train": 1})
    assert listed(open_source(f"folder:{root}"))[-1] == ("train/00.png", "train", None)


def test_splits_are_told_in_any_case_and_beside_folders_without_images(make_photos):
    root = make_photos({"Train/cat": 1, "Train/dog": 1, "TEST/cat": 1})
    (root / "__MACOSX").mkdir()
    source = open_source(f"folder:{root}")
    assert source.class_names == ("cat", "dog")
    assert [split for _, _, split in listed(source)] == ["test", "train", "train"]


@pytest.mark.parametrize("folders", [["train/cat", "test/cat", "extra"], ["val/cat", "test/cat"]])
def test_half_a_split_layout_is_refused(make_photos, folders):
    root = make_photos(dict.fromkeys(folders, 1))
    with pytest.raises(SourceError, match="expected one subfolder per class, or train/ val/ test/"):
        open_source(f"folder:{root}")


def test_a_class_that_links_to_another_keeps_both(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    (root / "kitten").symlink_to(root / "cat")
    assert open_source(f"folder:{root}").class_names == ("cat", "dog", "kitten")


def test_a_name_with_a_line_break_is_refused(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    (root / "cat" / "00.png").rename(root / "cat" / "a\nb.png")
    with pytest.raises(SourceError, match="without line breaks; rename it"):
        open_source(f"folder:{root}")


def test_one_path_in_two_spellings_is_the_same_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert same("folder:photos", "folder:./photos/")
    assert same("folder:photos", f"folder:{tmp_path}/photos")
    assert not same("folder:photos", "folder:pictures")
    assert not same("tfds:mnist", "digits")


def test_nested_folders_count_for_the_class_above_them(make_photos):
    root = make_photos({"cat/indoors/2024": 1, "cat": 1, "dog": 1})
    assert listed(open_source(f"folder:{root}")) == [
        ("cat/00.png", "cat", None),
        ("cat/indoors/2024/00.png", "cat", None),
        ("dog/00.png", "dog", None),
    ]


def test_endings_count_in_any_case(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    (root / "cat" / "00.png").rename(root / "cat" / "A.PNG")
    assert listed(open_source(f"folder:{root}"))[0] == ("cat/A.PNG", "cat", None)


def test_files_that_are_no_images_are_named_as_ignored(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    (root / "README.md").write_text("photos")
    (root / "stray.png").write_bytes((root / "cat" / "00.png").read_bytes())
    (root / "cat" / "notes.txt").write_text("meow")
    source = open_source(f"folder:{root}")
    assert sorted(source.ignored) == ["README.md", "cat/notes.txt"]
    assert source.outside == ("stray.png",)
    assert source.count == 2


def test_hidden_files_and_folders_are_ignored(make_photos):
    root = make_photos({"cat": 1, "dog": 1, ".thumbnails": 1, "cat/.cache": 1})
    (root / "cat" / "._00.png").write_bytes(b"a resource fork")
    (root / ".DS_Store").write_bytes(b"x")
    source = open_source(f"folder:{root}")
    assert source.class_names == ("cat", "dog")
    assert listed(source) == [("cat/00.png", "cat", None), ("dog/00.png", "dog", None)]
    assert sorted(source.ignored) == [
        ".DS_Store",
        ".thumbnails/00.png",
        "cat/._00.png",
        "cat/.cache/00.png",
    ]


def test_a_hidden_folder_does_not_hide_the_splits(make_photos):
    root = make_photos({"train/cat": 1, "train/dog": 1, ".git": 1})
    assert {split for _, _, split in listed(open_source(f"folder:{root}"))} == {"train"}


def test_hidden_folders_above_the_photos_do_not_matter(make_photos, tmp_path):
    root = make_photos({"cat": 1, "dog": 1}, tmp_path / ".hidden" / "photos")
    assert open_source(f"folder:{root}").count == 2


def test_a_missing_folder(tmp_path):
    place = f"folder:{tmp_path / 'nowhere'}"
    assert message_of(place) == f"{place}: no such folder"
    with pytest.raises(SourceError, match="no such folder"):
        identity(place)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "photos").write_text("")
    assert message_of(f"folder:{tmp_path / 'photos'}").endswith("no such folder")


@pytest.mark.parametrize("contents", [{}, {".": 3}, {"cat": 0}])
def test_a_folder_without_images_in_subfolders(make_photos, contents):
    place = f"folder:{make_photos(contents)}"
    assert message_of(place) == (
        f"{place}: no images in subfolders; expected one subfolder per class, with images (JPEG, "
        f"PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC), got {contents.get('.', 0)} images and 0 other "
        "files"
    )


def test_a_single_class_is_refused(make_photos):
    place = f"folder:{make_photos({'cat': 3})}"
    assert message_of(place) == f"{place}: expected at least 2 classes, got 1 (cat)"


def test_a_file_name_that_is_not_utf8_is_refused(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    try:
        os.rename(root / "cat" / "00.png", os.fsencode(root / "cat") + b"/caf\xe9.png")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    message = message_of(f"folder:{root}")
    assert r"caf\udce9.png': expected a file name in UTF-8" in message


def test_the_identity_of_a_folder_changes_with_its_images(make_photos):
    root = make_photos({"cat": 1, "dog": 1})
    place = f"folder:{root}"
    before = identity(place)
    assert identity(place) == before
    (root / "notes.txt").write_text("not an image")
    assert identity(place) == before
    path = root / "cat" / "00.png"
    os.utime(path, ns=(1, 1))
    touched = identity(place)
    assert touched != before
    path.rename(path.with_name("01.png"))
    renamed = identity(place)
    assert renamed != touched
    path.with_name("01.png").rename(path.with_name("01"))  # told by its content
    nameless = identity(place)
    assert nameless != renamed
    path.with_name("01").unlink()
    with pytest.raises(SourceError, match=r"cat/ \(0 other files\): a class without an image"):
        identity(place)


# npz

GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
RGB = np.random.default_rng(1).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def save_npz(tmp_path):
    def save(**arrays) -> str:
        np.savez_compressed(tmp_path / "set.npz", **arrays)
        return f"npz:{tmp_path / 'set.npz'}"

    return save


@pytest.mark.parametrize(
    ("images", "channels"), [(GREY, 1), (GREY[..., np.newaxis], 1), (RGB, 3), (RGB[:, ::-1], 3)]
)
def test_images_and_labels(save_npz, images, channels):
    source = open_source(save_npz(images=images, labels=LABELS))
    assert source.class_names == ("0", "1", "2")
    assert (source.count, source.image_size, source.channels) == (6, (5, 4), channels)
    examples = list(source.examples())
    np.testing.assert_array_equal(np.stack([example.image for example in examples]), images)
    assert [example.label for example in examples] == LABELS.tolist()
    assert [example.name for example in examples] == [f"images/{index}" for index in range(6)]
    assert {example.split for example in examples} == {None}


def test_arrays_of_each_split(save_npz):
    arrays = {"x_train": GREY[:3], "y_train": LABELS[:3], "x_test": GREY[3:5], "y_test": [1, 0]}
    source = open_source(save_npz(**arrays, x_val=GREY[5:], y_val=[2]))
    assert source.count == 6
    assert [(example.name, example.label, example.split) for example in source.examples()] == [
        ("train/0", 0, "train"),
        ("train/1", 1, "train"),
        ("train/2", 2, "train"),
        ("validation/0", 2, "validation"),
        ("test/0", 1, "test"),
        ("test/1", 0, "test"),
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_labels_of_any_integer_type_and_as_a_column(save_npz, dtype):
    source = open_source(save_npz(images=GREY, labels=LABELS.astype(dtype).reshape(-1, 1)))
    assert [example.label for example in source.examples()] == LABELS.tolist()


def test_names_of_classes(save_npz):
    source = open_source(save_npz(images=GREY, labels=LABELS, class_names=["a", "b", "c"]))
    assert source.class_names == ("a", "b", "c")


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "a"]])
def test_too_few_or_equal_names_of_classes(save_npz, names):
    message = message_of(save_npz(images=GREY, labels=LABELS, class_names=names))
    assert message.endswith(f"expected at least 3 different class_names, got {names}")


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (GREY / 255, "float64 [6, 5, 4]"),
        (GREY.astype(np.int16), "int16 [6, 5, 4]"),
        (GREY[0], "uint8 [5, 4]"),
        (np.zeros((6, 5, 4, 2), np.uint8), "uint8 [6, 5, 4, 2]"),
        (np.zeros((6, 1, 5, 4, 3), np.uint8), "uint8 [6, 1, 5, 4, 3]"),
        (np.zeros((6, 0, 4), np.uint8), "uint8 [6, 0, 4]"),
        (np.zeros((0, 5, 4), np.uint8), "uint8 [0, 5, 4]"),
    ],
)
def test_images_of_another_kind_are_refused(save_npz, images, got):
    place = save_npz(images=images, labels=LABELS)
    assert message_of(place) == (
        f"{place}: expected images as uint8 [examples, height, width] or "
        f"[examples, height, width, 1 or 3], got {got}"
    )


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        (LABELS - 1, "int64 [6]"),
        (LABELS[:5], "int64 [5]"),
        ([*LABELS, 0], "int64 [7]"),
        (LABELS.astype(float), "float64 [6]"),
        (LABELS > 0, "bool [6]"),
        (np.eye(6, 3, dtype=np.int64), "int64 [6, 3]"),
        (LABELS.astype(np.uint64) + np.uint64(2**63), "uint64 [6]"),
        (np.array(["a", "b", "c"] * 2), "<U1 [6]"),
    ],
)
def test_labels_of_another_kind_are_refused(save_npz, labels, got):
    place = save_npz(images=GREY, labels=labels)
    assert message_of(place) == f"{place}: expected labels as 6 integers from 0, got {got}"


def test_a_label_beyond_the_number_of_images_is_refused(save_npz):
    place = save_npz(images=GREY, labels=[0, 1, 2, 0, 1, 2_000_000_000])
    assert message_of(place) == (
        f"{place}: expected labels from 0 without gaps, "
        "got the label 2000000000 in a set of 6 images"
    )


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"images": GREY}, "expected both images and labels"),
        ({"labels": LABELS}, "expected both images and labels"),
        (
            {"x_train": GREY, "y_train": LABELS, "x_val": GREY},
            "expected both x_val and y_val",
        ),
        (
            {"x_train": GREY, "y_train": LABELS, "x_test": RGB, "y_test": LABELS},
            "expected images of one shape, got [(5, 4), (5, 4, 3)]",
        ),
    ],
)
def test_parts_that_do_not_fit_together(save_npz, arrays, reason):
    place = save_npz(**arrays)
    assert message_of(place) == f"{place}: {reason}"


@pytest.mark.parametrize(
    "keys",
    [
        (),
        ("pictures", "classes"),
        ("x_test", "y_test"),
        ("images", "labels", "x_test", "y_test"),
    ],
)
def test_names_of_another_layout_are_refused(save_npz, keys):
    arrays = {key: LABELS if key in ("labels", "y_test") else GREY for key in keys}
    message = message_of(save_npz(**arrays))
    assert "expected images and labels, or x_train and y_train with any of x_val" in message
    assert message.endswith(f"got {', '.join(sorted(keys)) or 'nothing'}")


@pytest.mark.parametrize("key", ["images", "labels", "class_names"])
def test_pickled_objects_are_refused(save_npz, key):
    arrays = {"images": GREY, "labels": LABELS, "class_names": np.array(["a", "b", "c"])}
    arrays[key] = arrays[key].astype(object)
    assert "expected arrays without pickled objects" in message_of(save_npz(**arrays))


def damage_deflated_data(content: bytes) -> bytes:
    """Overwrite the start of the first compressed member, behind its header and name."""
    start = 30 + int.from_bytes(content[26:28], "little") + int.from_bytes(content[28:30], "little")
    return content[:start] + b"\xff" * 16 + content[start + 16 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:-30],
        lambda content: b"",
        lambda content: b"text, not an archive",
        damage_deflated_data,
    ],
    ids=["half", "end", "empty", "text", "deflate"],
)
def test_a_damaged_file_is_refused(save_npz, damage, tmp_path):
    place = save_npz(images=GREY, labels=LABELS)
    path = tmp_path / "set.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert message_of(place).startswith(f"{place}: expected arrays without pickled objects")


def test_a_single_array_is_no_archive(tmp_path):
    np.save(tmp_path / "images.npy", GREY)
    place = f"npz:{tmp_path / 'images.npy'}"
    assert message_of(place) == f"{place}: expected an archive of arrays, got a single array"


def test_a_member_that_is_no_array_is_refused(save_npz, tmp_path):
    place = save_npz(labels=LABELS)
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as archive:
        archive.writestr("images", "not an array")
    assert "expected images as uint8" in message_of(place)


def test_a_missing_npz_file(tmp_path):
    place = f"npz:{tmp_path / 'nothing.npz'}"
    assert message_of(place) == f"{place}: no such file"
    with pytest.raises(SourceError, match="no such file"):
        identity(place)


def test_an_npz_file_with_one_class_is_refused(save_npz):
    message = message_of(save_npz(images=GREY, labels=np.zeros(6, int)))
    assert message.endswith("expected at least 2 classes, got 1 (0)")


def test_the_identity_of_an_npz_file_changes_with_it(save_npz):
    before = identity(save_npz(images=GREY, labels=LABELS))
    assert identity(save_npz(images=GREY[:5], labels=LABELS[:5])) != before


# tensorflow-datasets


def test_a_tfds_set_yields_encoded_bytes(tfds_sets):
    source = open_source("tfds:tiny_shapes")
    assert source.class_names == ("round", "square", "long")
    assert (source.count, source.image_size, source.channels) == (18, None, 3)
    assert source.ignored == ("split extra",)
    examples = list(source.examples())
    assert len(examples) == 18
    assert len({example.name for example in examples}) == 18
    for example in examples:
        assert isinstance(example.image, bytes)
        with Image.open(io.BytesIO(example.image)) as image:
            assert image.format == "PNG"
            index = image.height - 4  # each of the 18 has its own height
            assert image.width == 5
        assert example.label == index % 3
        assert example.split == ("train" if index < 12 else "test")
        pixels = read_image(example.image, ImageSpec(index + 4, 5, 3))
        np.testing.assert_array_equal(pixels, np.full((index + 4, 5, 3), index))
    assert sorted(read_image(e.image, ImageSpec(1, 1, 1)).item() for e in examples) == [*range(18)]


def test_a_tfds_set_comes_in_the_same_order_every_time(tfds_sets):
    first, second = (list(open_source("tfds:tiny_shapes").examples()) for _ in range(2))
    assert first == second


def test_a_tfds_set_without_labels_is_refused(tfds_sets):
    assert message_of("tfds:tiny_unlabelled") == (
        "tfds:tiny_unlabelled: expected an image classification set with one image and one label, "
        "got the images ['image'] and the labels []"
    )


def test_an_unknown_tfds_set(tfds_sets):
    assert message_of("tfds:no_such_set_anywhere") == (
        "tfds:no_such_set_anywhere: tensorflow-datasets knows no such set"
    )


@pytest.mark.parametrize(
    "place", ["tiny_shapes:99.0.0", "tiny_shapes/no_such_config", "../elsewhere", "two words"]
)
def test_a_tfds_set_that_cannot_be_made_gives_the_reason(tfds_sets, place):
    message = message_of(f"tfds:{place}")
    assert message.startswith(f"tfds:{place}: could not be downloaded and prepared: ")
