"""No image, class or label is lost on the way in without a line on the terminal and a count."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from pipeline.data.class_names import in_order
from pipeline.data.prepare import prepare
from pipeline.data.sources import SourceError, open_source
from pipeline.recipe import resolve
from serve.image_spec import ImageSpec


def prepared(run_dir: Path, data: str, **overrides) -> PreparedData:
    run = RunDirectory(run_dir)
    options = {key.replace("__", "."): value for key, value in overrides.items()}
    prepare(resolve({}, {"data": data, **options}), run)
    return PreparedData.open(run.data)


HEIC_STUB = b"\0\0\0\x18ftypheic" + b"\0" * 500


# Classes


@pytest.mark.parametrize("others", [{}, {"notes.txt": b"words"}])
def test_an_empty_class_folder_is_an_error(make_photos, others):
    root = make_photos({"bird": 3, "cat": 3})
    (root / "dog").mkdir()
    for name, content in others.items():
        (root / "dog" / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"dog/ \({len(others)} other files\): a class without"):
        open_source(f"folder:{root}")


def test_a_class_of_unreadable_images_is_an_error_whatever_share_is_allowed(make_photos, tmp_path):
    root = make_photos({"bird": 9, "cat": 9})
    (root / "dog").mkdir()
    for number in range(2):
        (root / "dog" / f"IMG_{number}.HEIC").write_bytes(HEIC_STUB)
    with pytest.raises(SourceError, match="class 'dog': none of its 2 images can be read"):
        prepared(tmp_path / "run", f"folder:{root}", prepare__max_rejected_share=0.9)
    assert "dog/IMG_1.HEIC" in RunDirectory(tmp_path / "run").rejected.read_text("utf-8")


def test_images_count_whatever_their_name(make_photos, tmp_path):
    root = make_photos({"cat": 8, "dog": 8})
    kinds = [("JPEG", ".jfif"), ("TIFF", ".tif"), ("AVIF", ".avif"), ("PNG", ""), ("JPEG", ".jpe")]
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        kind, ending = kinds[number % len(kinds)]
        with Image.open(path) as image:
            image.save(path.with_suffix(ending), kind)
        if ending:
            path.unlink()
    data = prepared(tmp_path / "run", f"folder:{root}")
    assert len(data.images) == sum(path.is_file() for path in root.rglob("*"))
    assert (data.manifest.rejected, data.manifest.ignored) == ([], [])


def test_unreadable_formats_are_named_and_count_towards_the_share(make_photos, tmp_path, capsys):
    root = make_photos({"cat": 20, "dog": 20})
    (root / "cat" / "a.psd").write_bytes(b"8BPS\0\1")
    (root / "dog" / "b").write_bytes(b"\xff\x0a\xfa")
    with pytest.raises(SourceError, match=r"2 of 42 images cannot be read.*Photoshop image"):
        prepared(tmp_path / "run", f"folder:{root}")
    data = prepared(tmp_path / "run", f"folder:{root}", prepare__max_rejected_share=0.1)
    assert data.manifest.rejected_by_reason() == {"Photoshop image": 1, "JPEG XL image": 1}
    assert "unreadable: 1 × JPEG XL image" in capsys.readouterr().out


def test_what_lies_outside_of_the_classes_is_counted_and_named(make_photos, tmp_path, capsys):
    root = make_photos({"data/Cat": 4, "data/Dog": 4, "docs": 5, ".": 1})
    data = prepared(tmp_path / "run", f"folder:{root}")
    assert data.manifest.class_names == ["Cat", "Dog"]
    assert len(data.manifest.ignored_images) == 6
    said = capsys.readouterr().out
    assert "the classes lie in data/" in said
    assert "passed over: docs/ 5, beside the folders 1" in said


def test_an_unlabelled_test_folder_is_no_class(make_photos, tmp_path):
    root = make_photos({"train/cat": 8, "train/dog": 8, "test": 5})
    manifest = prepared(tmp_path / "run", f"folder:{root}").manifest
    assert manifest.class_names == ["cat", "dog"]
    assert len(manifest.ignored_images) == 5
    assert len(manifest.splits["test"]) > 0


# Labels


def test_names_that_are_equal_in_unicode_are_one_class(make_photos, tmp_path, capsys):
    composed = "café"
    decomposed = unicodedata.normalize("NFD", composed)
    root = make_photos({f"train/{composed}": 4, "train/tea": 4, f"test/{decomposed}": 2})
    manifest = prepared(tmp_path / "run", f"folder:{root}").manifest
    assert manifest.class_names == [composed, "tea"]
    assert manifest.counts["test"] == {composed: 2, "tea": 0}
    assert "class 'café': two spellings in Unicode, taken as one" in capsys.readouterr().out


def test_names_that_look_alike_stay_apart_and_are_named(make_photos):
    source = open_source(f"folder:{make_photos({'Cat': 2, 'cat': 2, 'dog': 2})}")
    assert source.class_names == ("Cat", "cat", "dog")
    assert source.notes == ("classes that differ only in case or blanks: 'Cat', 'cat'",)


def test_numbers_sort_as_numbers():
    assert in_order(["10", "2", "b", "1", "a10", "-1", "0.5"]) == [
        "-1", "0.5", "1", "2", "10", "a10", "b"
    ]  # fmt: skip


def test_the_mapping_is_printed(make_photos, tmp_path, capsys):
    prepared(tmp_path / "run", f"folder:{make_photos({str(n): 3 for n in (0, 2, 10)})}")
    assert "classes: 0 0, 1 2, 2 10\n" in capsys.readouterr().out


def test_classes_that_no_image_has_are_left_out_and_named(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
    names = np.array(["none", "a", "never", "b"])
    np.savez(
        tmp_path / "set.npz", images=images, labels=np.arange(30) % 2 * 2 + 1, class_names=names
    )
    data = prepared(tmp_path / "run", f"npz:{tmp_path / 'set.npz'}")
    assert data.manifest.class_names == ["a", "b"]
    assert data.manifest.unused_classes == ["none", "never"]
    assert data.labels.tolist() == [0, 1] * 15
    assert "2 classes without any image left out: none, never" in capsys.readouterr().out


def test_the_same_picture_with_two_labels_is_contradictory(make_photos, tmp_path, capsys):
    root = make_photos({"train/cat": 4, "train/dog": 4, "val/cat": 1, "test/dog": 2})
    picture = (root / "train/cat/00.png").read_bytes()
    for name in ("train/dog/twin.png", "test/dog/twin.png", "train/cat/copy.png"):
        (root / name).write_bytes(picture)
    manifest = prepared(tmp_path / "run", f"folder:{root}").manifest
    (found,) = manifest.contradictory
    assert sorted(zip(found.names, found.labels, found.splits, strict=True)) == [
        ("test/dog/twin.png", "dog", "test"),
        ("train/cat/00.png", "cat", "train"),
        ("train/cat/copy.png", "cat", "train"),
        ("train/dog/twin.png", "dog", "train"),
    ]
    assert manifest.repeated == 1
    assert "contradictory: pictures with more than one label: 1;" in capsys.readouterr().out


# Size and channels


def save_all(root: Path, size: tuple[int, int], mode: str, odd: Image.Image | None = None) -> str:
    dice = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            pixels = dice.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / name / f"{number}.png")
    if odd:
        odd.save(root / "b" / "odd.png")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("size", "mode", "odd", "spec", "reason"),
    [
        ((28, 28), "L", None, ImageSpec(28, 28, 1), "28x28x1: the size of all images; all are"),
        ((28, 20), "1", None, ImageSpec(28, 20, 1), "28x20x1: the size of all images"),
        ((9, 12), "RGB", None, ImageSpec(9, 12, 3), "9x12x3: the size of all images; RGB"),
        ((9, 12), "L", Image.new("RGB", (12, 9)), ImageSpec(9, 12, 3), "as b/odd.png is stored"),
        ((9, 12), "L", Image.new("L", (9, 12)), ImageSpec(96, 96, 1), "differ in size (9x12 a/0"),
        ((513, 4), "L", None, ImageSpec(96, 96, 1), "all images are 513x4, more than 512"),
    ],
)  # fmt: skip
def test_the_images_give_the_size_and_channels(tmp_path, size, mode, odd, spec, reason):
    manifest = prepared(tmp_path / "run", save_all(tmp_path / "set", size, mode, odd)).manifest
    assert manifest.image_spec() == spec
    assert reason in manifest.notes[-1]


def test_photos_on_their_side_count_as_turned(tmp_path):
    data = save_all(tmp_path / "set", (9, 12), "RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (tmp_path / "set").rglob("*.png"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    assert prepared(tmp_path / "run", data).manifest.image_spec() == ImageSpec(12, 9, 3)
