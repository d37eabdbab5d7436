"""The page for people, with a model that gives every image any number of labels."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from serve.bundle import BundleDocument, seal
from serve.classifier import Classifier
from serve.image_spec import ImageSpec
from serve.images import read_image

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
NAMES = ("dark", "not dark", HOSTILE, "bright", "very bright", "never", "often")
THRESHOLDS = (0.5, 0.5, 0.4, 0.5, 0.8, 0.99, 0.05)
SCALES = (-12, 12, 6, 14, 20, 1, 2)
OFFSETS = (4, -3, -2.5, -8, -16, -3, -2)
PHONE = {"width": 360, "height": 740}

Start = Callable[..., Any]
MakeImage = Callable[..., Path]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of the brightness of 8x8 grey pixels, each by a sigmoid of its own."""
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "offsets"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])
    answer = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 7])
    constants = [
        numpy_helper.from_array(np.array([SCALES], np.float32) / 255, "weights"),
        numpy_helper.from_array(np.array(OFFSETS, np.float32), "offsets"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "brightness", [image], [answer], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    metrics = {"accuracy": 0.62, "label_accuracy": 0.93, "average_precision_macro": 0.8125,
               "f1_macro": 0.75, "examples": 64}  # fmt: skip
    document = BundleDocument(
        class_names=NAMES,
        image=ImageSpec(8, 8, 1),
        mean=(0.0,),
        std=(1.0,),
        dataset_fingerprint="ab" * 32,
        config_hash="cd" * 32,
        metrics=metrics,
        versions={"keras": "3.15.1"},
        created="2026-01-02T03:04:05+00:00",
        parity={"onnx": {"accuracy": 0.625, "examples": 64, "max_difference": 7e-07}},
        task="multi-label",
        thresholds=THRESHOLDS,
    )
    path = tmp_path_factory.mktemp("bundle") / "shades.onnx"
    path.write_bytes(seal(model.SerializeToString(), document.to_json()))
    return path


@pytest.fixture(scope="module")
def server(start: Start, bundle: Path) -> Iterator[str]:
    server = start(bundle)
    yield server.url
    assert server.stop() == 0


@pytest.fixture
def problems(page: Page) -> list[str]:
    """What the browser complains of."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


@pytest.fixture
def shades(page: Page, problems: list[str], server: str) -> Page:
    page.emulate_media(reduced_motion="reduce")
    page.goto(server)
    expect(page.get_by_role("heading", level=1)).to_contain_text("shades")
    return page


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """A picture of one brightness, 0 to 1."""

    def make(name: str, brightness: float) -> Path:
        path = tmp_path / name
        Image.new("L", (64, 64), round(255 * brightness)).save(path)
        return path

    return make


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(list(files))


def answer(bundle: Path, image: Path) -> list[tuple[str, float, float]]:
    """Name, probability and threshold of each label, most probable first."""
    classifier = Classifier(bundle, threads=1)
    found = classifier.predict(read_image(image, classifier.document.image)[None])[0]
    labels = zip(NAMES, map(float, found), THRESHOLDS, strict=True)
    return sorted(labels, key=lambda label: -label[1])


def texts(rows: Locator) -> list[str]:
    return [row.inner_text().split("\n")[0] for row in rows.all()]


def shown_share(probability: float) -> str:
    return ">99.9 %" if 0.9995 <= probability < 1 else f"{100 * probability:.1f} %"


def within(outer: Locator, inner: Locator, at: str) -> float:
    """Where an element ends ("right") or begins ("left") in another, as a share of its width."""
    left, width = outer.evaluate("e => (b => [b.left, b.width])(e.getBoundingClientRect())")
    edge = inner.evaluate(f"e => e.getBoundingClientRect().{at}")
    return float((edge - left) / width)


@pytest.mark.parametrize("brightness", [0.0, 0.3, 0.62, 1.0])
def test_labels_above_their_thresholds_are_told_from_the_others(
    shades: Page, problems: list[str], bundle: Path, make_image: MakeImage, brightness: float
) -> None:
    image = make_image("shade.png", brightness)
    choose(shades, image)
    expected = answer(bundle, image)
    given = [label for label in expected if label[1] >= label[2]]
    card = shades.locator("#answers > li")
    expect(card.locator(".labels li")).to_have_count(len(given))
    assert card.locator(".labels li").all_inner_texts() == [
        f"{name} {shown_share(probability)}" for name, probability, _ in given
    ]
    shown = [label for label in expected if label in expected[:5] or label in given]
    rows = card.locator(".bars li")
    assert texts(rows) == [name for name, _, _ in shown]
    colours = {True: set(), False: set()}  # type: dict[bool, set[str]]
    for row, (_, probability, threshold) in zip(rows.all(), shown, strict=True):
        has_it = probability >= threshold
        assert row.evaluate("row => row.className") == ("given" if has_it else "")
        bar = row.locator(".bar")
        colours[has_it].add(bar.evaluate("bar => getComputedStyle(bar).backgroundColor"))
        track = row.locator(".track")
        assert within(track, bar, "right") == pytest.approx(probability, abs=0.003)
        mark = within(track, row.locator(".mark"), "left")
        assert mark == pytest.approx(threshold, abs=0.02)
    assert len(colours[True]) <= 1 and len(colours[False]) <= 1
    assert not colours[True] & colours[False], "nothing tells them apart"
    status = shades.locator("#status").inner_text()
    assert status.startswith("shade.png: " + given[0][0])
    assert problems == []


def test_an_image_without_labels_says_so(
    shades: Page, problems: list[str], make_image: MakeImage, server: str
) -> None:
    labels = [{"label": "dark", "probability": 0.2, "threshold": 0.5}]
    result = {"name": None, "labels": [], "top": labels}
    body = {"model": "shades", "version": "1", "results": [result]}
    shades.route("**/predict*", lambda route: route.fulfill(json=body))
    choose(shades, make_image("nothing.png", 0.5))
    card = shades.locator("#answers > li")
    expect(card.locator(".label")).to_have_text("no label")
    expect(card).to_contain_text("No probability reaches its threshold.")
    expect(shades.locator("#status")).to_have_text("nothing.png: no label.")
    assert problems == []


def test_the_model_shows_its_task_figures_and_thresholds(shades: Page, problems: list[str]) -> None:
    lead = "version 1 · 7 labels, any number at once · 8×8 pixels, grey · float32"
    expect(shades.get_by_text(lead)).to_be_visible()
    tiles = shades.locator(".tile").all_inner_texts()
    assert [tile.split("\n")[0] for tile in tiles[:2]] == ["81 %", "62 %"]
    assert "mean average precision" in tiles[0] and "macro F1 75 %" in tiles[0]
    assert "exactly the right labels" in tiles[1] and "64 test images" in tiles[1]
    shades.get_by_text("The 7 labels and their thresholds").click()
    rows = shades.get_by_role("region", name="Thresholds").locator("tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        [name, f"{100 * threshold:.2f} %"]
        for name, threshold in zip(NAMES, THRESHOLDS, strict=True)
    ]
    assert shades.title() == "shades · Lockstep"
    assert problems == []


def test_on_a_phone_nothing_is_cut_off(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    shades.set_viewport_size(PHONE)  # type: ignore[arg-type]
    choose(shades, *(make_image(f"{index}.png", index / 4) for index in range(4)))
    expect(shades.locator("#status")).to_have_text("4 images: all answered.")
    assert not shades.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_assistive_technology(
    shades: Page, make_image: MakeImage, scheme: str
) -> None:
    shades.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    choose(shades, make_image("first.png", 0.9))
    expect(shades.locator("#answers .labels li")).not_to_have_count(0)
    shades.get_by_text("The 7 labels and their thresholds").click()
    found = Axe().run(shades)
    assert [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]] == []
