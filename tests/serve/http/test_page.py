"""The pages for people, in a real browser, before the real server as a process of its own."""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from playwright.sync_api import (
    ConsoleMessage,
    Locator,
    Page,
    Request,
    Response,
    expect,
)

import serve
from serve.bundle import BundleDocument, Finding, Rejection, seal
from serve.classifier import Classifier
from serve.image_spec import ImageSpec
from serve.images import read_image

ROOT = Path(serve.__file__).parents[1]
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
NAMES = ("black", "dark", HOSTILE, "pale grey", "bright", "white")
KEY = "open-sesame-open-sesame"
MOST_BYTES = 40_000

Start = Callable[..., Any]


# The server


VERDICT = (
    Finding("more than one answer", "bad", "the answer for all 359 images is '<b>black</b>'"),
    Finding("calibrated", "unknown", "too few images to tell whether confidence agrees"),
    Finding("enough test images", "good", "359 images: the accuracy lies between 0.97 and 1.00"),
)


def write_bundle(path: Path, names: tuple[str, ...]) -> Path:
    """A bundle that names the brightness of 8x8 grey pixels, from black to white."""
    levels = np.linspace(0, 1, len(names), dtype=np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["product"]),
        helper.make_node("Add", ["product", "offsets"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 8, 8, 1])
    answer = helper.make_tensor_value_info(
        "probabilities", TensorProto.FLOAT, ["batch", len(names)]
    )
    constants = [
        numpy_helper.from_array(60 * levels[None] / 255, "weights"),
        numpy_helper.from_array(-30 * levels**2, "offsets"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "brightness", [image], [answer], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    proof = {"accuracy": 0.9876, "examples": 359, "label_agreement": 1.0, "max_difference": 7.2e-07}
    document = BundleDocument(
        class_names=names,
        image=ImageSpec(8, 8, 1),
        mean=(0.5,),
        std=(0.25,),
        dataset_fingerprint="ab" * 32,
        config_hash="cd" * 32,
        metrics={"accuracy": 0.9876, "ece": 0.0173, "examples": 359},
        versions={"keras": "3.15.1", "lockstep": serve.__version__},
        created="2026-01-02T03:04:05+00:00",
        temperature=0.75,
        rejection=Rejection(threshold=0.5, coverage=0.9, accuracy=0.995),
        parity={"onnx": proof, "batch": {**proof, "max_difference": 3.1e-06}},
        verdict=VERDICT,
    )
    path.write_bytes(seal(model.SerializeToString(), document.to_json()))
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "shades.onnx", NAMES)


@pytest.fixture(scope="module")
def server(start: Start, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    other = write_bundle(tmp_path_factory.mktemp("server") / "other.onnx", ("night", "day"))
    server = start(f"shades={bundle}", f"daylight={other}")
    yield server.url
    assert server.stop() == 0


@pytest.fixture(scope="module")
def guarded(start: Start, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one model that wants a key and takes no large image."""
    keys = tmp_path_factory.mktemp("guarded") / "keys.txt"
    keys.write_text(f"{KEY}\n")
    server = start(bundle, "--api-keys", keys, "--max-body", str(MOST_BYTES))
    yield server.url
    assert server.stop() == 0


# The browser


@pytest.fixture
def problems(page: Page) -> list[str]:
    """What the browser complains of, violations of the policy too, and requests to other hosts.

    A prediction or a key may be refused: that is for the page to tell. Nothing else may.
    """
    found: list[str] = []

    def logged(message: ConsoleMessage) -> None:
        if not message.text.startswith("Failed to load resource"):
            found.append(message.text)

    def requested(request: Request) -> None:
        if not re.match(r"(blob:)?http://127\.0\.0\.1:", request.url):
            found.append(request.url)

    def answered(response: Response) -> None:
        if response.status >= 400 and response.status != 401 and "/predict" not in response.url:
            found.append(f"{response.status} {response.url}")

    page.on("console", logged)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("request", requested)
    page.on("response", answered)
    return found


@pytest.fixture
def shades(page: Page, problems: list[str], server: str) -> Page:
    """The page with the model `shades`, ready."""
    page.goto(server)
    page.get_by_label("Model", exact=True).select_option("shades")
    expect(page.get_by_role("heading", level=1)).to_contain_text("shades")
    return page


MakeImage = Callable[..., Path]


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """A picture of one brightness, 0 to 1."""

    def make(name: str, brightness: float, size: tuple[int, int] = (8, 8)) -> Path:
        path = tmp_path / name
        Image.new("L", size, round(255 * brightness)).save(path)
        return path

    return make


def cards(page: Page) -> Locator:
    return page.locator("#answers > li")


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(list(files))


def transfer(page: Page, *files: Path) -> Any:
    """A DataTransfer of the browser that holds these files."""
    contents = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    return page.evaluate_handle(
        """contents => {
            const transfer = new DataTransfer();
            for (const [name, text] of contents) {
                const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
                transfer.items.add(new File([bytes], name));
            }
            return transfer;
        }""",
        contents,
    )


def shown(probability: float) -> str:
    if 0.9995 <= probability < 1:
        return ">99.9 %"
    return "<0.1 %" if 0 < probability < 0.0005 else f"{100 * probability:.1f} %"


def overflows(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def statement(page: Page) -> Locator:
    """What a screen reader is told."""
    return page.locator("#status")


# Answers


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picked_image_is_answered(
    shades: Page, problems: list[str], bundle: Path, make_image: MakeImage, scheme: str
) -> None:
    shades.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    image = make_image("shade.png", 0.62)
    choose(shades, image)
    card = cards(shades)
    classifier = Classifier(bundle, threads=1)
    expected = classifier.predict(read_image(image, classifier.document.image)[None])[0]
    best = np.argsort(-expected, kind="stable")[:5]
    assert NAMES[best[0]] == "pale grey"
    expect(card.locator(".label")).to_contain_text(f"pale grey{shown(expected[best[0]])}")
    rows = card.locator(".bars li")
    expect(rows).to_have_count(5)
    for row, index in zip(rows.all(), best, strict=True):
        assert row.inner_text().split("\n") == [NAMES[index], shown(expected[index])]
        track = row.locator(".track").bounding_box()
        bar = row.locator(".bar").evaluate("bar => bar.getBoundingClientRect().width")
        assert track is not None and track["width"] > 100
        assert bar / track["width"] == pytest.approx(expected[index], abs=0.002)
    note = card.locator(".note").last.inner_text()
    times = r"\d+ ms round trip \(decode [\d.]+, queue [\d.]+, compute [\d.]+ ms\)"
    assert re.fullmatch(rf"shades, version 1 · {times}", note)
    preview = card.get_by_role("img", name="Preview of shade.png")
    assert preview.evaluate("image => image.naturalWidth") == 8
    assert preview.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    # The live region says it, so that it is heard without looking for it.
    assert statement(shades).get_attribute("role") == "status"
    expect(statement(shades)).to_have_text(f"shade.png: pale grey, {shown(expected[best[0]])}.")
    assert problems == []


def test_an_answer_that_is_not_sure_says_so(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    choose(shades, make_image("between.png", 0.9))
    expect(cards(shades).get_by_text("uncertain", exact=True)).to_be_visible()
    expect(statement(shades)).to_contain_text(", uncertain.")
    choose(shades, make_image("sure.png", 1.0))
    expect(cards(shades)).to_have_count(2)
    expect(statement(shades)).to_contain_text("sure.png: white")
    expect(cards(shades).first.get_by_text("uncertain")).to_have_count(0)  # newest first
    assert problems == []


def test_the_image_is_sent_as_it_is(shades: Page, make_image: MakeImage) -> None:
    image = make_image("large.jpg", 0.2, (700, 500))
    shades.evaluate(
        """() => {
            const send = window.fetch;
            window.fetch = (path, options) => {
                if (options.body) window.sent = options.body;
                return send(path, options);
            };
        }"""
    )
    choose(shades, image)
    expect(statement(shades)).to_contain_text("large.jpg: dark")
    sent = shades.evaluate("window.sent.arrayBuffer().then((all) => [...new Uint8Array(all)])")
    assert bytes(sent) == image.read_bytes()


def test_dropped_images_are_answered(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    files = transfer(shades, make_image("dropped.png", 0))
    shades.dispatch_event("#zone", "dragover", {"dataTransfer": files})
    expect(shades.locator("#zone")).to_have_class("card over")
    shades.dispatch_event("#zone", "drop", {"dataTransfer": files})
    expect(shades.locator("#zone")).to_have_class("card")
    expect(statement(shades)).to_contain_text("dropped.png: black")
    text = shades.evaluate_handle(
        "() => { const t = new DataTransfer(); t.setData('text/plain', 'x'); return t; }"
    )
    shades.dispatch_event("body", "drop", {"dataTransfer": text})
    expect(statement(shades)).to_contain_text("no file")
    assert problems == []


def test_a_pasted_image_is_answered(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    paste = """clipboardData => document.body.dispatchEvent(
        new ClipboardEvent("paste", { clipboardData, bubbles: true }))"""
    transfer(shades, make_image("pasted.png", 1)).evaluate(paste)
    expect(statement(shades)).to_contain_text("pasted.png: white")
    transfer(shades).evaluate(paste)
    expect(statement(shades)).to_have_text("The clipboard holds no image.")
    assert problems == []


def test_what_is_no_image_gets_an_error(shades: Page, problems: list[str], tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("These are only words.")
    choose(shades, notes)
    expect(cards(shades)).to_contain_text("This is no image that can be read.")
    expect(cards(shades).locator(".bars")).to_have_count(0)
    expect(cards(shades)).to_contain_text("no preview")
    expect(statement(shades)).to_contain_text("notes.txt: This is no image that can be read.")
    expect(cards(shades).get_by_role("button", name="Try again")).to_have_count(0)
    assert problems == []


def test_several_images_get_a_row_each(
    shades: Page, problems: list[str], make_image: MakeImage, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(make_image("whole.png", 0.5).read_bytes()[:40])
    whole = [make_image(f"{index}.png", index / 5) for index in range(6)]
    choose(shades, *whole[:3], broken, *whole[3:])
    expect(statement(shades)).to_have_text("7 images: 6 answered, 1 not.")
    expect(cards(shades)).to_have_count(7)
    labels = [*NAMES[:3], None, *NAMES[3:]]
    for card, label in zip(cards(shades).all(), labels, strict=True):
        if label:
            expect(card.locator(".label")).to_contain_text(label)
            expect(card.locator(".bars li")).to_have_count(5)
        else:
            expect(card.get_by_role("heading")).to_have_text("broken.png")
            expect(card.locator(".bad")).to_be_visible()
    shades.get_by_role("button", name="Clear").click()
    expect(cards(shades)).to_have_count(0)
    expect(shades.get_by_role("button", name="Choose images")).to_be_focused()
    assert problems == []


# The camera


REMEMBER_STREAM = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (wish) => {
        window.stream = await open(wish);
        window.frameWidth = window.stream.getVideoTracks()[0].getSettings().width;
        return window.stream;
    };
"""
# A dialog hears that it was closed a moment after it is gone.
LIVE = """() => new Promise((done) => setTimeout(() => done(
    window.stream.getTracks().filter((track) => track.readyState === "live").length), 200))"""


def test_a_picture_from_the_camera_is_answered(
    page: Page, problems: list[str], server: str
) -> None:
    page.add_init_script(REMEMBER_STREAM)
    page.goto(server)
    page.get_by_role("button", name="Use the camera").click()
    dialog = page.get_by_role("dialog", name="Camera")
    expect(dialog).to_be_visible()
    assert page.evaluate(LIVE) == 1
    dialog.get_by_role("button", name="Take the picture").click()
    expect(dialog).to_be_hidden()
    expect(statement(page)).to_contain_text("camera 1.png: ")
    expect(cards(page).locator(".bars li")).not_to_have_count(0)
    size = cards(page).get_by_role("img").evaluate("image => image.naturalWidth")
    assert size == page.evaluate("window.frameWidth")
    assert page.evaluate(LIVE) == 0
    page.get_by_role("button", name="Use the camera").click()
    expect(dialog).to_be_visible()
    assert page.evaluate(LIVE) == 1
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate(LIVE) == 0
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()
    assert problems == []


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ("undefined", "localhost or over https"),
        (
            "{ getUserMedia: async () => { throw new DOMException('', 'NotFoundError'); } }",
            "This device has no camera",
        ),
        (
            "{ getUserMedia: async () => { throw new DOMException('', 'NotAllowedError'); } }",
            "not allowed to use the camera",
        ),
    ],
)
def test_no_camera_is_said_plainly(
    page: Page, problems: list[str], server: str, devices: str, reason: str
) -> None:
    page.add_init_script(
        f"Object.defineProperty(navigator, 'mediaDevices', {{ value: {devices} }})"
    )
    page.goto(server)
    page.get_by_role("button", name="Use the camera").click()
    expect(statement(page)).to_contain_text(reason)
    expect(page.get_by_role("button", name="Use the camera")).to_be_enabled()
    assert problems == []


# The model


def test_the_model_shows_its_figures(shades: Page, problems: list[str]) -> None:
    expect(shades.get_by_text("version 1 · 6 classes · 8×8 pixels, grey · float32")).to_be_visible()
    expect(shades.get_by_text("proof passed")).to_be_visible()
    expect(shades.get_by_role("link", name="model: bad")).to_be_visible()
    verdict = shades.get_by_role("region", name="Verdict on the model")
    assert verdict.locator("li").all_inner_texts() == [
        f"{finding.status}\n{finding.name}: {finding.text}" for finding in VERDICT
    ]
    tiles = shades.locator(".tile").all_inner_texts()
    figures = [tile.split("\n")[0] for tile in tiles]
    assert figures == ["98.8 %", "1.7 %", "3.1e-6", "8×8", "float32"]
    assert "359 test images" in tiles[0] and "temperature 0.75" in tiles[1]
    expect(shades.get_by_text("An answer below 50.00 % is called uncertain")).to_be_visible()
    proof = shades.get_by_role("region", name="The proof")
    rows = {row.split()[0]: row.split()[1:] for row in proof.locator("tbody tr").all_inner_texts()}
    assert rows["onnx"] == ["98.8", "%", "359", "100.0", "%", "7.2e-7"]
    assert rows["batch"][-1] == "3.1e-6"
    shades.get_by_text("The 6 classes").click()
    expect(shades.get_by_text("black, dark, ")).to_be_visible()
    shades.get_by_text("All that the file says of itself").click()
    for text in ("keras 3.15.1", "2026-01-02T03:04:05+00:00", "ab" * 32, "cd" * 32):
        expect(shades.locator("dd", has_text=text)).to_be_visible()
    assert problems == []


def test_one_of_several_models_is_chosen(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    image = make_image("noon.png", 1)
    choose(shades, image)
    expect(cards(shades)).to_contain_text("white")
    shades.get_by_label("Model", exact=True).select_option("daylight")
    expect(shades.get_by_role("heading", level=1)).to_contain_text("daylight")
    expect(shades.get_by_text("2 classes ·")).to_be_visible()
    assert shades.title() == "daylight · Lockstep"
    choose(shades, image)
    expect(cards(shades).first).to_contain_text("daylight, version 1")
    expect(cards(shades).first.locator(".label")).to_contain_text("day")
    expect(cards(shades).first.locator(".bars li")).to_have_count(2)
    assert problems == []


def test_a_version_loaded_meanwhile_is_shown(
    shades: Page, server: str, problems: list[str], make_image: MakeImage
) -> None:
    models = shades.request.get(f"{server}/models").json()
    result = {"label": "white", "probability": 1, "top": [], "uncertain": False}
    answer = {"model": "shades", "version": "2", "results": [result]}
    for model in models["models"]:
        model["version"] = "2"
    shades.route("**/models", lambda route: route.fulfill(json=models))
    shades.route("**/predict*", lambda route: route.fulfill(json=answer))
    choose(shades, make_image("image.png", 1))
    expect(shades.get_by_text("version 2 · 6 classes")).to_be_visible()
    expect(shades.get_by_label("Model", exact=True)).to_have_value("shades")
    assert problems == []


def test_names_from_outside_are_text(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    """A class or a file may be called anything."""
    name = "<svg onload=alert(1)> & 'x'.png"
    files = transfer(shades, make_image("plain.png", 0.4))
    shades.evaluate(
        """([files, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([files.files[0]], name));
            const drop = new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
            document.body.dispatchEvent(drop);
        }""",
        [files, name],
    )
    expect(cards(shades).get_by_role("heading")).to_have_text(name)
    expect(cards(shades).locator(".label")).to_contain_text(HOSTILE)
    expect(statement(shades)).to_contain_text(f"{name}: {HOSTILE}")
    assert shades.locator("#answers img").count() == 1  # the preview
    assert shades.locator("svg").count() == 0
    assert shades.title() == "shades · Lockstep"
    assert problems == []


# Failures


@pytest.mark.parametrize(
    ("status", "text", "again"),
    [
        (403, "does not answer pages from this address", False),
        (404, "no longer served", False),
        (408, "took too long", True),
        (413, "larger than this server accepts", False),
        (429, "more to do than it can take. Try again in 7 s.", True),
        (500, "The server failed.", True),
        (503, "takes no requests at the moment. Try again in 7 s.", True),
        (504, "no answer in time", True),
        (None, "cannot be reached", True),
    ],
)
def test_failures_are_told(
    shades: Page, make_image: MakeImage, status: int | None, text: str, again: bool
) -> None:
    headers = {"Retry-After": "7"} if status in (429, 503) else {}
    body = json.dumps({"error": "what the server says <b>of it</b>"})
    shades.route(
        "**/predict*",
        lambda route: (
            route.fulfill(status=status, body=body, headers=headers) if status else route.abort()
        ),
    )
    choose(shades, make_image("image.png", 1))
    expect(statement(shades)).to_contain_text(text)
    expect(statement(shades)).to_have_class("bad")
    expect(cards(shades).locator(".bad")).to_contain_text(text)
    if status:
        expect(cards(shades)).to_contain_text("what the server says <b>of it</b>")
    button = cards(shades).get_by_role("button", name="Try again")
    expect(button).to_have_count(int(again))
    if again:
        shades.unroute("**/predict*")
        button.click()
        expect(cards(shades).locator(".label")).to_contain_text("white")
        expect(statement(shades)).to_contain_text("image.png: white")


def test_a_file_that_is_gone_is_told(
    shades: Page, problems: list[str], make_image: MakeImage
) -> None:
    """So are folders, which can be dropped but not read."""
    image = make_image("gone.png", 1)
    shades.route("**/predict*", lambda route: route.fulfill(status=503, body="{}"))
    choose(shades, image)
    expect(cards(shades)).to_contain_text("takes no requests")
    image.unlink()
    shades.unroute("**/predict*")
    cards(shades).get_by_role("button", name="Try again").click()
    expect(cards(shades)).to_contain_text("The browser cannot read it")
    assert problems == []


def test_a_key_is_asked_for_and_kept_in_the_tab(
    page: Page, problems: list[str], guarded: str, make_image: MakeImage
) -> None:
    page.goto(guarded)
    field = page.get_by_label("API key")
    expect(field).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("answers only with a key")
    choose(page, make_image("image.png", 1))
    expect(cards(page)).to_contain_text("The server wants an API key.")
    field.fill("wrong")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("The server does not accept this key.")
    field.fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(cards(page).locator(".label")).to_contain_text("white")  # what waited was sent again
    expect(field).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_contain_text("shades")
    expect(page.get_by_label("Model", exact=True)).to_be_hidden()  # there is but one
    kept = page.evaluate("[JSON.stringify(sessionStorage), localStorage.length, document.cookie]")
    assert KEY in kept[0] and kept[1:] == [0, ""]
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("shades")
    expect(field).to_be_hidden()
    assert problems == []


def test_an_image_above_the_limit_is_refused(
    page: Page, problems: list[str], guarded: str, tmp_path: Path
) -> None:
    page.add_init_script(f"sessionStorage.setItem('lockstep.key', '{KEY}')")
    page.goto(guarded)
    large = tmp_path / "large.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (300, 300), dtype=np.uint8)).save(large)
    assert large.stat().st_size > 2 * MOST_BYTES
    choose(page, large)
    expect(cards(page)).to_contain_text("The image is larger than this server accepts.")
    assert problems == []


# For everyone


def test_the_keyboard_is_enough(shades: Page, problems: list[str], make_image: MakeImage) -> None:
    shades.on("filechooser", lambda _: None)  # from now on; a key is quicker than this takes
    shades.get_by_role("heading", level=1).click()  # from the top
    reached = []
    for _ in range(5):
        shades.keyboard.press("Tab")
        reached.append(
            shades.evaluate(
                """() => {
                    const { id, textContent } = document.activeElement;
                    const { outlineStyle } = getComputedStyle(document.activeElement);
                    return [id || textContent, outlineStyle];
                }"""
            )
        )
    places = ["verdict", "model", "API", "pick", "camera"]
    assert reached == [[place, "solid"] for place in places]
    shades.keyboard.press("Shift+Tab")
    expect(shades.get_by_role("button", name="Choose images")).to_be_focused()
    with shades.expect_file_chooser() as chooser:
        shades.keyboard.press("Enter")
    chooser.value.set_files(make_image("image.png", 0))
    expect(statement(shades)).to_contain_text("image.png: black")
    shades.keyboard.press("Tab")
    shades.keyboard.press("Enter")
    expect(shades.get_by_role("dialog", name="Camera")).to_be_visible()
    expect(shades.get_by_role("button", name="Take the picture")).to_be_focused()
    shades.keyboard.press("Escape")
    expect(shades.get_by_role("dialog", name="Camera")).to_be_hidden()
    assert problems == []


@pytest.mark.parametrize("path", ["/", "/docs"])
@pytest.mark.parametrize(("width", "scheme"), [(320, "light"), (320, "dark"), (640, "light")])
def test_narrow_and_dark_screens_need_no_scrolling_sideways(
    page: Page, server: str, make_image: MakeImage, path: str, width: int, scheme: str
) -> None:
    """320 pixels is also what 1280 pixels leave at a zoom of 400 %."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 700})
    page.goto(server + path)
    if path == "/":
        choose(page, make_image(f"{'long' * 30}.png", 0.4), make_image("short.png", 0.4))
        expect(cards(page).locator(".bars li")).not_to_have_count(0)
        choose(page, make_image("single.png", 0.4))
        expect(cards(page)).to_have_count(3)
        expect(statement(page)).to_contain_text("single.png")
        for details in page.locator("summary").all():
            details.click()
    else:
        expect(page.locator("article").first).to_be_visible()
    assert not overflows(page)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(18, 22, 28)" if scheme == "dark" else "rgb(245, 247, 250)")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_nothing_stands_in_the_way_of_assistive_technology(
    page: Page, server: str, make_image: MakeImage, tmp_path: Path, path: str, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page.goto(server + path)
    if path == "/":
        notes = tmp_path / "notes.txt"
        notes.write_text("words")
        choose(page, make_image("first.png", 0.9), notes)
        expect(statement(page)).to_contain_text("1 answered, 1 not")
    else:
        expect(page.locator("article").first).to_be_visible()
    found = Axe().run(page)
    assert [(item["id"], item["nodes"][0]["html"]) for item in found.response["violations"]] == []


# The description of the API


def test_every_operation_is_described(page: Page, problems: list[str], server: str) -> None:
    description = page.request.get(f"{server}/openapi.json").json()
    methods = {"get", "put", "post", "delete", "options", "head", "patch"}
    expected = {
        f"{method.upper()} {path}": item[method]
        for path, item in description["paths"].items()
        for method in item
        if method in methods
    }
    assert len(expected) > 5
    page.goto(f"{server}/docs")
    articles = page.locator("#operations article")
    expect(articles).to_have_count(len(expected))
    for name, operation in expected.items():
        article = page.get_by_role("article", name=name, exact=True)
        expect(article.get_by_role("heading", level=3)).to_have_text(name)
        text = article.inner_text()
        assert operation["summary"] in text
        for status in operation["responses"]:
            assert status in text
        for parameter in operation.get("parameters", []):
            if "name" in parameter:
                assert parameter["name"] in text
        assert article.locator(".command pre").inner_text().startswith("curl ")
        contents = page.get_by_role("navigation", name="Operations")
        contents.get_by_role("link", name=name, exact=True).click()
        expect(article).to_be_in_viewport()
    for name in description.get("components", {}).get("schemas", {}):
        expect(page.get_by_role("article", name=f"Schema {name}", exact=True)).to_have_count(1)
    assert "undefined" not in page.locator("main").inner_text()
    assert "[object" not in page.locator("main").inner_text()
    links = page.locator("a[href^='#']").evaluate_all("all => all.map((a) => a.hash.slice(1))")
    assert all(page.locator(f"[id='{target}']").count() == 1 for target in set(links))
    assert problems == []


def test_a_command_is_copied(page: Page, problems: list[str], server: str) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server}/docs")
    article = page.get_by_role("article", name="POST /predict", exact=True)
    article.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#copied")).to_have_text("The command is in the clipboard.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == article.locator(".command pre").inner_text()
    assert copied.startswith("curl ") and f"{server}/predict" in copied
    assert problems == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_command_does_what_it_says(
    page: Page, guarded: str, make_image: MakeImage, tmp_path: Path
) -> None:
    page.add_init_script(f"sessionStorage.setItem('lockstep.key', '{KEY}')")
    page.goto(f"{guarded}/docs")
    article = page.get_by_role("article", name="POST /predict", exact=True)
    command = article.locator(".command pre").inner_text()
    make_image("image.jpg", 1)
    answer = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "KEY": KEY},
        capture_output=True,
        check=True,
    )
    assert json.loads(answer.stdout)["results"][0]["label"] == "white"
