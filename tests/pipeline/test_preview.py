"""The preview of augmentation: what is drawn is what training sees."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page

from export.prepared_data import PreparedData
from pipeline.config import Config
from pipeline.input.batches import Examples, training_batches
from pipeline.input.seen import seen_in_training
from pipeline.options.augment import AugmentOptions, alone, telling
from pipeline.preview import main
from pipeline.recipe import ConfigError, load_recipe, resolve
from pipeline.report.augmentation import each_alone, pick, picture_of, what_training_saw
from serve.command import LockstepError
from tests.pipeline.test_input import examples

EVERYTHING = telling(9, 7)


def epochs_of(
    examples: Examples, batch_size: int, augmentation: AugmentOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Two epochs as training has them: `[epochs, examples, ...]` of images and targets."""
    dataset = training_batches(
        examples, batch_size=batch_size, epochs=2, seed=3, augmentation=augmentation
    )
    images, targets = map(np.concatenate, zip(*dataset.as_numpy_iterator(), strict=True))
    return images.reshape(2, len(examples), *images.shape[1:]), targets.reshape(2, -1, 4)


@pytest.mark.parametrize(
    ("augmentation", "batch_size"),
    [
        (EVERYTHING, 7),
        (alone(EVERYTHING, "mixup"), 7),
        (alone(EVERYTHING, "cutmix"), 1),
        (alone(EVERYTHING, "mixup"), 64),
        (alone(EVERYTHING, "rotation"), 7),
        (AugmentOptions(), 7),
    ],
)
def test_what_is_looked_up_is_what_batches_hold(
    augmentation: AugmentOptions, batch_size: int
) -> None:
    """With a last batch of a single image, with such batches alone, and with all in one."""
    data = examples(22)
    indices = [5, 11, 12, 13, 26]
    found = seen_in_training(
        data, indices, 2, batch_size=batch_size, seed=3, augmentation=augmentation
    )
    plain, _ = epochs_of(data, batch_size, AugmentOptions())  # it shows who stands where
    images, targets = epochs_of(data, batch_size, augmentation)
    for index, epochs in zip(indices, found, strict=True):
        for epoch, (pixels, target) in enumerate(epochs):
            place = int(np.flatnonzero(plain[epoch, :, 0, 0, 0] == index)[0])
            np.testing.assert_array_equal(pixels, images[epoch, place])
            np.testing.assert_array_equal(target, targets[epoch, place])


def test_telling_strengths_leave_no_augmentation_out() -> None:
    options = telling(28, 28)
    for name in AugmentOptions.model_fields:
        assert getattr(options, name), name
        only = alone(options, name).model_dump(exclude_defaults=True)
        assert only == {name: getattr(options, name)}
    assert telling(1, 1).crop_padding == 1
    assert telling(4096, 4096).crop_padding == 256


# The grid


def config_of(**more: object) -> Config:
    return resolve(load_recipe("digits"), more)


def test_images_of_every_class_are_picked_in_turns(prepared: Path) -> None:
    data = PreparedData.open(prepared)
    picked = pick(data, 13)
    assert list(data.labels[picked]) == [*range(10), 0, 1, 2]
    assert set(picked) <= set(data.indices("train"))
    assert len(set(picked)) == 13
    assert len(pick(data, 10**6)) == len(data.indices("train"))


def test_targets_stand_under_mixed_images(prepared: Path) -> None:
    data = PreparedData.open(prepared)
    rows = what_training_saw(config_of(**{"augment.mixup": 1.0}), data, 3, 4)
    assert len(rows) == 3
    texts = [cell.target for row in rows for cell in row.epochs]
    for text in texts:
        shares = [int(found) for found in re.findall(r"^\d: (\d+)\s%$", text, re.MULTILINE)]
        assert sum(shares) in (0, 99, 100, 101)
        assert shares == sorted(shares, reverse=True)
    assert any("\n" in text for text in texts)
    np.testing.assert_array_equal(rows[0].original.pixels, data.images[pick(data, 1)[0]])


def test_without_augmentation_there_is_nothing_to_draw(prepared: Path) -> None:
    config = config_of(**{"augment.crop_padding": 0, "augment.rotation": 0})
    assert what_training_saw(config, PreparedData.open(prepared), 3, 4) == []


def test_each_augmentation_has_its_row_at_the_configured_strength(prepared: Path) -> None:
    rows = each_alone(config_of(**{"augment.noise": 7}), PreparedData.open(prepared), 6)
    assert [row.title.split()[0] for row in rows] == list(AugmentOptions.model_fields)
    titles = {row.title for row in rows}
    assert {"noise 7", "rotation 10", "horizontal_flip", "hue 0.5 (of colours alone)"} <= titles
    for row in rows:
        changed = any((cell.pixels != row.original.pixels).any() for cell in row.epochs)
        assert changed == ("of colours" not in row.title), row.title


def test_the_picture_shows_every_image(prepared: Path) -> None:
    rows = what_training_saw(config_of(), PreparedData.open(prepared), 2, 3)
    with Image.open(io.BytesIO(picture_of(rows))) as picture:
        assert picture.format == "PNG"
        assert picture.width > 400
        assert np.asarray(picture.convert("L")).std() > 30


# The command


def test_the_page_is_self_contained_and_accessible(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--images", "3", "--draws", "4", "--augment.cutmix", "1"]) == 0
    path = tmp_path / "runs/try-digits/preview.html"
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("request", lambda request: found.append(request.url))
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(path.as_uri())
        assert [text for text in found if not text.startswith(("file:", "data:"))] == []
        pictures = page.locator("figure img")
        assert pictures.count() == 3 * 5
        assert pictures.first.evaluate("image => image.naturalWidth") == 8
        assert page.get_by_text(re.compile(r"\d: \d+\s%")).count() > 1
        violations = Axe().run(page).response["violations"]
        assert [(item["id"], item["nodes"][0]["html"]) for item in violations] == []
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def test_the_same_seed_draws_the_same_picture_and_another_one_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = []
    for number, rotation in enumerate(("20", "20", "25")):
        path = tmp_path / f"{number}.png"
        arguments = ["--images", "2", "--draws", "2", "--output", str(path)]
        assert main([*arguments, "--augment.rotation", rotation]) == 0
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert "prepare    skipped" in capsys.readouterr().out
    assert not (tmp_path / "runs/try-digits/preview.html").exists()


def test_without_augmentation_each_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    none = ["--augment.crop_padding", "0", "--augment.rotation", "0"]
    assert main([*none, "--draws", "1"]) == 0
    out = capsys.readouterr().out
    assert "no augmentation is configured" in out
    assert "16 rows" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "grid.jpg"], "expected a name that ends in .html or .png, got grid.jpg"),
        (["--images", "0"], "--images: expected 1 to 100, got 0"),
        (["--draws", "101"], "--draws: expected 1 to 100, got 101"),
        (["--augment.mixup", "-1"], "augment.mixup: expected"),
        (["--data", "folder:nowhere"], "nowhere"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((LockstepError, ConfigError), match=re.escape(message)):
        main(arguments)
    assert list(tmp_path.iterdir()) == []
