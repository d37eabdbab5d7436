"""The stage `prepare`: what it stores, what it rejects, and what it leaves when it fails."""

import csv
import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.prepared_data import Duplicate, PreparedData
from export.run_directory import RunDirectory
from pipeline.data.prepare import channel_statistics, prepare
from pipeline.data.sources import SourceError
from pipeline.data.splits import SplitError
from pipeline.recipe import resolve
from pipeline.run import main
from serve.image_spec import ImageSpec
from serve.images import read_image

ROOT = Path(__file__).parents[2]


def prepared(run_dir: Path, data: str, **overrides) -> PreparedData:
    """Prepare with overrides as `seed=1` or `prepare__channels=3`, and open the result."""
    options = {key.replace("__", "."): value for key, value in overrides.items()}
    run = RunDirectory(run_dir)
    prepare(resolve({}, {"data": data, **options}), run)
    return PreparedData.open(run.data)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> PreparedData:
    return prepared(tmp_path_factory.mktemp("digits"), "digits")


# Arrays and manifest


def test_the_arrays_of_the_digits(digits):
    assert (digits.images.shape, digits.images.dtype) == ((1797, 8, 8, 1), np.uint8)
    assert (digits.labels.shape, digits.labels.dtype) == ((1797,), np.int64)
    assert (digits.images.min(), digits.images.max()) == (0, 255)


def test_the_manifest_describes_the_arrays(digits):
    manifest = digits.manifest
    assert manifest.source == "digits"
    assert manifest.class_names == list("0123456789")
    assert manifest.image_spec() == ImageSpec(8, 8, 1)
    assert (manifest.rejected, manifest.ignored) == ([], [])
    assert [len(manifest.splits[name]) for name in ("train", "validation", "test")] == [
        1295,
        143,
        359,
    ]
    everything = np.concatenate([digits.indices(name) for name in manifest.splits])
    assert sorted(everything.tolist()) == list(range(1797))


def test_the_counts_are_those_of_the_labels(digits):
    for split, counts in digits.manifest.counts.items():
        labels = digits.labels[digits.indices(split)]
        expected = {str(label): int((labels == label).sum()) for label in range(10)}
        assert counts == expected


def test_mean_and_deviation_are_those_of_the_training_images_alone(digits):
    train = digits.images[digits.indices("train")] / 255
    assert digits.manifest.mean == pytest.approx([train.mean()], rel=1e-12)
    assert digits.manifest.std == pytest.approx([train.std()], rel=1e-12)
    everything = digits.images / 255
    assert digits.manifest.mean != pytest.approx([everything.mean()], rel=1e-7)


def test_each_channel_has_its_own_mean_and_deviation():
    images = np.random.default_rng(0).integers(0, 256, (3000, 2, 3, 3), dtype=np.uint8)
    images[..., 1] //= 4
    images[..., 2] = 51
    chosen = np.arange(0, 3000, 2)
    mean, std = channel_statistics(images, chosen)
    part = images[chosen] / 255
    np.testing.assert_allclose(mean, part.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[:2], part.std(axis=(0, 1, 2))[:2], rtol=1e-12)
    assert std[2] == 1 / 255  # one grey step for a channel that never changes


def test_the_summary_gives_sizes_and_what_was_left_out(make_photos, tmp_path):
    root = make_photos({"cat": 10, "dog": 10})
    (root / "cat" / "notes.txt").write_text("meow")
    (root / "dog" / "bad.png").write_bytes(b"x")
    config = resolve({}, {"data": f"folder:{root}", "prepare.max_rejected_share": 0.1})
    assert prepare(config, RunDirectory(tmp_path / "run")) == (
        "14 train, 2 validation, 4 test; 2 classes; 8x10x3; "
        "1 unreadable (see data/manifest.json); 1 other file passed over"
    )


@pytest.mark.parametrize(
    ("overrides", "spec"),
    [
        ({}, ImageSpec(8, 10, 3)),
        ({"prepare__image_size": [4, 6]}, ImageSpec(4, 6, 3)),
        (
            {
                "prepare__image_size": [4, 6],
                "prepare__channels": 1,
                "prepare__resize": "pad",
                "prepare__resample": "nearest",
                "prepare__background": 7,
            },
            ImageSpec(4, 6, 1, "pad", "nearest", 7),
        ),
    ],
)
def test_options_reach_the_pixels_by_way_of_the_spec(make_photos, tmp_path, overrides, spec):
    root = make_photos({"cat": 3, "dog": 3})
    data = prepared(tmp_path / "run", f"folder:{root}", **overrides)
    assert data.manifest.image_spec() == spec
    for pixels, path in zip(data.images, sorted(root.rglob("*.png")), strict=True):
        np.testing.assert_array_equal(pixels, read_image(path, spec))


def test_splits_of_the_source_are_kept(make_photos, tmp_path):
    root = make_photos({"train/cat": 4, "train/dog": 4, "valid/dog": 1, "test/cat": 2})
    data = prepared(tmp_path / "run", f"folder:{root}")
    # Rows follow the sorted paths: test, train, valid.
    assert data.manifest.splits == {
        "train": [2, 3, 4, 5, 6, 7, 8, 9],
        "validation": [10],
        "test": [0, 1],
    }
    assert data.manifest.counts["test"] == {"cat": 2, "dog": 0}


def test_a_class_that_only_the_test_folder_has_is_named(make_photos, tmp_path):
    root = make_photos({"train/cat": 4, "train/dog": 4, "test/emu": 2})
    with pytest.raises(SplitError, match=r"^class 'emu' has too few images: 2"):
        prepared(tmp_path / "run", f"folder:{root}")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_class_of_one_image_is_named(make_photos, tmp_path):
    root = make_photos({"cat": 4, "dog": 1})
    with pytest.raises(SplitError, match=r"^class 'dog' has too few images: 1"):
        prepared(tmp_path / "run", f"folder:{root}")


def test_a_training_folder_without_images_is_an_error_of_one_line(make_photos, tmp_path):
    root = make_photos({"train": 0, "test/cat": 4, "test/dog": 4})
    (root / "train").mkdir()
    with pytest.raises(SourceError, match=r"got test/ without images to train on"):
        prepared(tmp_path / "run", f"folder:{root}")


# Fingerprint

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
LABELS = np.arange(30) % 2
NAMES = np.array(["even", "odd"])


def npz_fingerprint(directory, images=IMAGES, labels=LABELS, names=NAMES, **overrides) -> str:
    directory.mkdir(exist_ok=True)
    np.savez(directory / "set.npz", images=images, labels=labels, class_names=names)
    data = prepared(directory / "run", f"npz:{directory / 'set.npz'}", **overrides)
    return data.manifest.fingerprint


def test_the_fingerprint_is_the_same_for_the_same_data(tmp_path):
    assert npz_fingerprint(tmp_path / "one") == npz_fingerprint(tmp_path / "two")


def one_pixel_changed() -> np.ndarray:
    images = IMAGES.copy()
    images[17, 2, 3] ^= 1
    return images


def one_label_changed() -> np.ndarray:
    labels = LABELS.copy()
    labels[17] = 0
    return labels


@pytest.mark.parametrize(
    "change",
    [
        {"images": one_pixel_changed()},
        {"labels": one_label_changed()},
        {"names": np.array(["even", "uneven"])},
        {"images": IMAGES[::-1], "labels": LABELS[::-1]},
        {"seed": 1},
        {"prepare__test_share": 0.3},
        {"prepare__channels": 3},
    ],
    ids=["pixel", "label", "class name", "order", "seed", "share", "channels"],
)
def test_the_fingerprint_changes_with_whatever_training_sees(tmp_path, change):
    assert npz_fingerprint(tmp_path, **change) != npz_fingerprint(tmp_path)


def test_the_fingerprint_changes_with_a_label_even_where_the_splits_stay(tmp_path):
    def of(labels: np.ndarray) -> str:
        parts = {"train": slice(0, 20), "val": slice(20, 24), "test": slice(24, 30)}
        arrays = {f"x_{name}": IMAGES[part] for name, part in parts.items()}
        arrays |= {f"y_{name}": labels[part] for name, part in parts.items()}
        np.savez(tmp_path / "set.npz", **arrays)
        return prepared(tmp_path / "run", f"npz:{tmp_path / 'set.npz'}").manifest.fingerprint

    assert of(LABELS) != of(one_label_changed())


def test_preparing_again_gives_the_same_files(digits, tmp_path):
    again = prepared(tmp_path, "digits")
    for name in ("images.npy", "labels.npy", "manifest.json"):
        assert (again.directory / name).read_bytes() == (digits.directory / name).read_bytes()


# Unusual images that are accepted


def plain_photo(color: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (8, 8), color)


def transparent() -> Image.Image:
    image = Image.new("RGBA", (8, 8), (0, 0, 255, 255))
    image.paste((9, 9, 9, 0), (0, 0, 8, 4))
    return image


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.full((8, 8), 0x80FF, np.uint16))


def palette() -> Image.Image:
    return plain_photo((10, 200, 30)).quantize(4)


def save_rotated(path: Path) -> None:
    """Stored with the bright half on the left, to be shown with the bright half on top."""
    image = Image.new("RGB", (8, 8), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 4, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, quality=100, exif=exif)


@pytest.fixture(scope="module")
def unusual(tmp_path_factory) -> dict[str, np.ndarray]:
    """The prepared pixels of every unusual image, by file name."""
    root = tmp_path_factory.mktemp("unusual")
    for name in ("plain", "special"):
        (root / name).mkdir()
    for index in range(4):
        plain_photo((index, 0, 0)).save(root / "plain" / f"{index}.bmp")
    special = root / "special"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(special / "cmyk.jpg", quality=100)
    transparent().save(special / "transparent.png")
    transparent().save(special / "transparent.webp", lossless=True)
    sixteen_bits().save(special / "sixteen.png")
    palette().save(special / "palette.png")
    palette().save(special / "palette.gif")
    Image.new("1", (8, 8), 1).save(special / "bitmap.png")
    save_rotated(special / "rotated.jpg")
    data = prepared(root.parent / "run", f"folder:{root}", prepare__image_size=[8, 8])
    assert data.manifest.rejected == []
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {path.name: pixels for path, pixels in zip(paths, data.images, strict=True)}


@pytest.mark.parametrize(
    ("name", "color"),
    [
        ("3.bmp", (3, 0, 0)),
        ("sixteen.png", (128, 128, 128)),
        ("palette.png", (10, 200, 30)),
        ("palette.gif", (10, 200, 30)),
        ("bitmap.png", (255, 255, 255)),
    ],
)
def test_an_unusual_image_gets_its_colour(unusual, name, color):
    np.testing.assert_array_equal(unusual[name], np.full((8, 8, 3), color))


def test_a_cmyk_image_becomes_red(unusual):
    red = np.full((8, 8, 3), (255, 0, 0), int)
    assert np.abs(unusual["cmyk.jpg"].astype(int) - red).max() <= 2


@pytest.mark.parametrize("name", ["transparent.png", "transparent.webp"])
def test_transparent_pixels_become_the_background(unusual, name):
    expected = np.full((8, 8, 3), (0, 0, 255))
    expected[:4] = 255
    np.testing.assert_array_equal(unusual[name], expected)


def test_the_orientation_in_exif_is_applied(unusual):
    assert unusual["rotated.jpg"][:3].min() >= 250
    assert unusual["rotated.jpg"][5:].max() <= 5


# Images that are rejected


def png_chunk(kind: bytes, content: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + crc


def bomb() -> bytes:
    """A PNG header that promises 3.6 billion pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )


def noise_file(kind: str) -> bytes:
    pixels = np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def corrupt() -> bytes:
    """A PNG file with its compressed pixels overwritten."""
    content = noise_file("PNG")
    middle = content.index(b"IDAT") + 4
    return content[:middle] + b"\xff" * 64 + content[middle + 64 :]


def animated() -> bytes:
    stream = io.BytesIO()
    frames = [plain_photo((shade, 0, 0)) for shade in (0, 100, 200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


BAD = {
    "animated.gif": (animated(), "animated image: expected a still image"),
    "bomb.png": (bomb(), "decompression bomb: expected at most 50,000,000 pixels"),
    "corrupt.png": (corrupt(), "corrupt image: "),
    "empty.jpg": (b"", "empty: 0 bytes"),
    "text.jpg": (
        b"this is a text",
        "not an image: expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC",
    ),
    "truncated.jpg": (noise_file("JPEG")[:-200], "corrupt image: "),
    "truncated.png": (noise_file("PNG")[:-200], "corrupt image: "),
}


@pytest.fixture
def damaged_photos(make_photos):
    """13 good images and 7 bad ones, which lie between the good ones of both classes."""
    root = make_photos({"cat": 7, "dog": 6})
    for name, (content, _) in BAD.items():
        (root / "cat" / name).write_bytes(content)
    return root


def assert_rejected(found: list[tuple[str, str]]) -> None:
    assert [name for name, _ in found] == [f"cat/{name}" for name in BAD]
    for (name, reason), (_, start) in zip(found, BAD.values(), strict=True):
        assert reason.startswith(start), name


def test_rejected_images_are_counted_with_their_reasons(damaged_photos, tmp_path):
    data = prepared(
        tmp_path / "run", f"folder:{damaged_photos}", prepare__max_rejected_share=7 / 20
    )
    assert_rejected([(item.name, item.reason) for item in data.manifest.rejected])
    assert len(data.images) == len(data.labels) == 13
    assert data.labels.tolist() == [0] * 7 + [1] * 6
    assert not RunDirectory(tmp_path / "run").rejected.exists()
    spec = data.manifest.image_spec()
    for file in data.manifest.proof_files:
        np.testing.assert_array_equal(
            read_image(data.proof_path(file), spec), data.images[file.index]
        )


def test_above_the_allowed_share_prepare_stops_and_lists_all(damaged_photos, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(SourceError) as caught:
        prepared(run.path, f"folder:{damaged_photos}", prepare__max_rejected_share=0.34)
    assert str(caught.value) == (
        f"folder:{damaged_photos}: 7 of 20 images cannot be read, expected at most 34.0%; "
        f"first: cat/animated.gif: {BAD['animated.gif'][1]}; save the frame that counts as a file "
        f"of its own; all are listed in {run.rejected}: mend or remove them, or raise "
        "--prepare.max_rejected_share"
    )
    assert list(run.path.iterdir()) == [run.rejected]
    with open(run.rejected, encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["name", "reason"]
    assert_rejected([(name, reason) for name, reason in rows])


def test_after_mending_prepare_works_and_the_list_is_gone(damaged_photos, tmp_path):
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(SourceError):
        prepared(run.path, f"folder:{damaged_photos}")
    for name in BAD:
        (damaged_photos / "cat" / name).unlink()
    data = prepared(run.path, f"folder:{damaged_photos}")
    assert len(data.images) == 13
    assert list(run.path.iterdir()) == [run.data]


def test_a_failure_leaves_the_data_prepared_before(make_photos, tmp_path):
    root = make_photos({"cat": 6, "dog": 6})
    run = RunDirectory(tmp_path / "run")
    before = prepared(run.path, f"folder:{root}").manifest
    (root / "dog" / "empty.png").write_bytes(b"")
    with pytest.raises(SourceError, match="1 of 13 images cannot be read"):
        prepared(run.path, f"folder:{root}")
    assert PreparedData.open(run.data).manifest == before


def test_a_set_of_nothing_but_damaged_images(make_photos, tmp_path):
    root = make_photos({"cat": 3, "dog": 3})
    for path in root.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(
        SourceError, match=r"classes 'cat', 'dog': none of their 6 images can be read; .* 6 × empty"
    ):
        prepared(tmp_path / "run", f"folder:{root}", prepare__max_rejected_share=0.99)


def test_more_pixels_than_allowed_are_rejected(make_photos, tmp_path):
    root = make_photos({"cat": 6, "dog": 6})  # images of 10x8
    with pytest.raises(SourceError, match="image of 10x8 = 80 pixels: expected at most 79"):
        prepared(tmp_path / "run", f"folder:{root}", prepare__max_pixels=79)
    assert len(prepared(tmp_path / "run", f"folder:{root}", prepare__max_pixels=80).images) == 12


def test_names_beyond_ascii_are_recorded(make_photos, tmp_path):
    root = make_photos({"Kätzchen": 6, "犬": 6})
    (root / "犬" / "été.png").write_bytes(b"")
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(SourceError, match=r"first: 犬/été\.png: empty"):
        prepared(run.path, f"folder:{root}")
    assert "犬/été.png,empty: 0 bytes\n" in run.rejected.read_text("utf-8")
    data = prepared(run.path, f"folder:{root}", prepare__max_rejected_share=0.5)
    assert data.manifest.class_names == ["Kätzchen", "犬"]


# Duplicates


def test_duplicates_across_splits_are_reported(make_photos, tmp_path):
    root = make_photos({"train/cat": 4, "train/dog": 4, "val/cat": 2, "test/dog": 2})
    shutil.copy(root / "train/dog/02.png", root / "test/dog/copy.png")
    shutil.copy(root / "train/dog/02.png", root / "val/cat/copy.png")
    with Image.open(root / "train/cat/01.png") as image:
        image.save(root / "test/dog/reencoded.bmp")
    data = prepared(tmp_path / "run", f"folder:{root}", prepare__image_size=[8, 8])
    assert data.manifest.duplicates == [
        Duplicate(names=["train/cat/01.png", "test/dog/reencoded.bmp"], splits=["train", "test"]),
        Duplicate(
            names=["train/dog/02.png", "val/cat/copy.png", "test/dog/copy.png"],
            splits=["train", "validation", "test"],
        ),
    ]


def test_duplicates_within_a_split_are_not_reported(make_photos, tmp_path):
    root = make_photos({"train/cat": 4, "train/dog": 4, "val/cat": 2, "test/dog": 2})
    shutil.copy(root / "train/dog/02.png", root / "train/dog/copy.png")
    assert prepared(tmp_path / "run", f"folder:{root}").manifest.duplicates == []


# Files for the proof


def assert_proof_files_give_the_images(data: PreparedData) -> None:
    indices = [file.index for file in data.manifest.proof_files]
    assert sorted(indices) == data.manifest.splits["test"]
    spec = data.manifest.image_spec()
    for file in data.manifest.proof_files:
        pixels = read_image(data.proof_path(file), spec)
        np.testing.assert_array_equal(pixels, data.images[file.index])


def test_the_proof_of_a_folder_uses_its_own_files(make_photos, tmp_path):
    root = make_photos({"cat": 6, "dog": 6})
    data = prepared(tmp_path / "run", f"folder:{root}")
    assert_proof_files_give_the_images(data)
    originals = sorted(root.rglob("*.png"))
    for file in data.manifest.proof_files:
        assert Path(file.path) == originals[file.index]
    assert not (data.directory / "proof").exists()


def test_a_relative_folder_gives_absolute_paths(make_photos, tmp_path, monkeypatch):
    root = make_photos({"cat": 6, "dog": 6})
    monkeypatch.chdir(tmp_path)
    data = prepared(tmp_path / "run", f"folder:{root.name}")
    for file in data.manifest.proof_files:
        assert Path(file.path).is_relative_to(root)


def test_the_proof_of_arrays_uses_png_files_in_the_run(digits):
    assert_proof_files_give_the_images(digits)
    stored = {f"proof/{path.name}" for path in (digits.directory / "proof").iterdir()}
    assert stored == {file.path for file in digits.manifest.proof_files}
    assert stored == {f"proof/{index:06}.png" for index in digits.manifest.splits["test"]}


@pytest.mark.parametrize(
    "overrides",
    [
        {"prepare__image_size": [16, 16]},
        {"prepare__image_size": [5, 12], "prepare__resize": "pad", "prepare__channels": 3},
        {"prepare__image_size": [5, 12], "prepare__resample": "lanczos"},
    ],
)
def test_the_proof_files_of_arrays_are_the_originals_before_a_resize(tmp_path, overrides):
    data = prepared(tmp_path, "digits", **overrides)
    assert list(data.images.shape[1:3]) == overrides["prepare__image_size"]
    assert_proof_files_give_the_images(data)
    with Image.open(data.proof_path(data.manifest.proof_files[0])) as image:
        assert (image.size, image.mode) == ((8, 8), "L")


def test_the_proof_of_encoded_images_uses_their_very_bytes(tfds_sets, tmp_path):
    data = prepared(tmp_path, "tfds:tiny_shapes", prepare__image_size=[6, 6])
    assert data.manifest.counts["test"] == {"round": 2, "square": 2, "long": 2}
    assert data.manifest.ignored == ["split extra"]
    assert_proof_files_give_the_images(data)
    for file in data.manifest.proof_files:
        assert file.path == f"proof/{file.index:06}.image"
        assert data.proof_path(file).read_bytes().startswith(b"\x89PNG")


# Failures of the machine

LIMITED = """\
import os, resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
os.execv(sys.executable, [sys.executable, "-m", "pipeline.run", *sys.argv[2:]])
"""


def run_command(*command: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
@pytest.mark.parametrize(
    ("limit", "left"),
    [
        (512, set()),  # not even config.yaml
        (64 * 1024, {"config.yaml"}),  # in the middle of images.npy
        (115_000, {"config.yaml"}),  # in its last bytes, which are only flushed on closing
    ],
)
def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path, limit, left):
    run_dir = tmp_path / "run"
    done = run_command("-c", LIMITED, str(limit), "--run-dir", str(run_dir))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in run_dir.iterdir()} == {".lock", *left}


def test_after_a_failed_write_the_same_run_directory_works(tmp_path):
    run_command("-c", LIMITED, str(64 * 1024), "--run-dir", str(tmp_path / "run"))
    assert len(prepared(tmp_path / "run", "digits").images) == 1797


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_run_directory_that_cannot_be_made_is_one_line(tmp_path, below):
    (tmp_path / "file").write_text("in the way")
    done = run_command("-m", "pipeline.run", "--run-dir", str(tmp_path / "file" / below))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


def test_data_that_are_not_there_claim_no_run_directory(tmp_path):
    with pytest.raises(SourceError, match="no such folder"):
        main(["--data", f"folder:{tmp_path / 'nowhere'}", "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
