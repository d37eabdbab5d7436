"""`POST /predict`: what people and scripts send, and what they get."""

import gzip
import io
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image

from serve.bundle import Rejection
from serve.classifier import Classifier
from serve.images import encode_png, read_image

CLOSE = 1e-6
BOUNDARY = "a-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
IMAGES = Path(__file__).parents[1] / "images"
ODD_LABELS = ("Käfer", "bee, <b>", '\u2028 "')

WriteBundle = Callable[..., Path]


# Servers, images and requests


@pytest.fixture(scope="module")
def classifier(bundle: Path) -> Classifier:
    return Classifier(bundle, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_bundle: WriteBundle) -> Path:
    """Two models, one with two versions, and one that is certain of little."""
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2):
        make_bundle(folder / "letters" / str(version) / "model.onnx", seed=version)
    make_bundle(
        folder / "größe 1" / "1" / "model.onnx",
        shape=(6, 9, 3),
        names=ODD_LABELS,
        rejection=Rejection(threshold=0.5, coverage=0.5, accuracy=0.9),
    )
    return folder


@pytest.fixture(scope="module")
def many(start: Callable[..., Any], folder: Path) -> Any:
    return start(folder, "--versions", "all", "--poll", "0")


def post(
    server: Any,
    body: bytes | list[bytes],
    content_type: str | None = None,
    *,
    query: str = "",
    **headers: str,
) -> tuple[int, Any, dict[str, str]]:
    """Status, document and headers by lower-case name."""
    if content_type is not None:
        headers["Content-Type"] = content_type
    connection = HTTPConnection(server.address, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", f"/predict{query}", body, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, json.loads(response.read()), found
    finally:
        connection.close()


def post_form(
    server: Any, files: list[tuple[str, bytes]], *, query: str = ""
) -> tuple[int, Any, dict[str, str]]:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"'
        "\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return post(server, b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()]), FORM, query=query)


def photo(
    form: str = "JPEG",
    *,
    size: tuple[int, int] = (64, 48),
    seed: int = 0,
    mode: str = "RGB",
    orientation: int | None = None,
) -> bytes:
    generator = np.random.default_rng(seed)
    image = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8)).resize(size)
    exif = Image.Exif()
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, form, **({"exif": exif} if orientation else {}))
    return buffer.getvalue()


def expected(classifier: Classifier, image: bytes) -> NDArray[np.float32]:
    pixels = read_image(image, classifier.document.image)
    probabilities: NDArray[np.float32] = classifier.predict(pixels[None])[0]
    return probabilities


def assert_answers(
    result: dict[str, Any], classifier: Classifier, image: bytes, *, top: int = 5
) -> None:
    """That a result is what the reader and the classifier say of an image."""
    probabilities = expected(classifier, image)
    names = classifier.document.class_names
    best = np.argsort(-probabilities, kind="stable")[: min(top, len(names))]
    assert [item["label"] for item in result["top"]] == [names[index] for index in best]
    found = [item["probability"] for item in result["top"]]
    np.testing.assert_allclose(found, probabilities[best], rtol=0, atol=CLOSE)
    for item in (result, *result["top"]):
        # As short as a float32 can be written.
        assert item["probability"] == float(str(np.float32(item["probability"])))
    assert (result["label"], result["probability"]) == (names[best[0]], found[0])
    assert set(result) == {"name", "label", "probability", "top", "uncertain"}


# One image as the body


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "image/jpeg",
        "image/png",
        "IMAGE/X-Anything; a=b",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "Application/Octet-Stream; charset=binary",
    ],
)
def test_an_image_is_the_body_whatever_it_is_called(
    server: Any, classifier: Classifier, content_type: str | None
) -> None:
    image = photo("PNG")
    status, document, headers = post(server, image, content_type)
    assert status == 200
    assert (document["model"], document["version"]) == ("letters", "1")
    (result,) = document["results"]
    assert result["name"] is None
    assert result["uncertain"] is False
    assert_answers(result, classifier, image)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "video/mp4", "multipart/mixed; boundary=x", "image", "?"],
)
def test_what_is_called_something_else_is_refused(server: Any, content_type: str) -> None:
    status, document, _ = post(server, photo(), content_type)
    assert status == 415
    assert "expected an image, or images as multipart/form-data" in document["error"]
    assert content_type.partition(";")[0] in document["error"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_format_is_read(server: Any, classifier: Classifier, form: str, mode: str) -> None:
    image = photo(form, mode=mode)
    status, document, _ = post(server, image)
    assert status == 200
    assert_answers(document["results"][0], classifier, image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_camera_was(
    server: Any, classifier: Classifier, orientation: int
) -> None:
    image = photo(orientation=orientation)
    status, document, _ = post(server, image)
    assert status == 200
    assert_answers(document["results"][0], classifier, image)
    plain = expected(classifier, photo())
    if orientation > 1:
        assert np.abs(expected(classifier, image) - plain).max() > 1e-3
    else:
        np.testing.assert_array_equal(expected(classifier, image), plain)


@pytest.mark.parametrize("orientation", [None, 6])
def test_large_photos_are_read_as_the_reader_reads_them(
    server: Any, classifier: Classifier, orientation: int | None
) -> None:
    image = photo(size=(4032, 3024), orientation=orientation)
    status, document, _ = post(server, image, "image/jpeg")
    assert status == 200
    assert_answers(document["results"][0], classifier, image)


def test_every_stored_image_is_read_as_the_reader_reads_it(
    server: Any, classifier: Classifier
) -> None:
    """Palettes, 16 bits, interlaced, CMYK, transparent, progressive, ..."""
    files = sorted(path for path in IMAGES.iterdir() if path.suffix != ".json")
    assert len(files) > 50
    status, document, _ = post_form(server, [(path.name, path.read_bytes()) for path in files])
    assert status == 200
    for path, result in zip(files, document["results"], strict=True):
        assert result["name"] == path.name
        assert_answers(result, classifier, path.read_bytes())


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "expected an image as the body, got 0 bytes"),
        (b"words", 422, "not an image: expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIC"),
        (b"GIF89a", 422, "image"),
        pytest.param(photo("JPEG")[:-200], 422, "corrupt image", id="a JPEG cut off"),
        pytest.param(photo("PNG")[:50], 422, "corrupt image", id="a PNG cut off"),
        (b"\xff\xd8" + b"\0" * 1000, 422, "image"),
        (b'{"image": "abc"}', 422, "not an image"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(
    server: Any, body: bytes, status: int, message: str
) -> None:
    found, document, _ = post(server, body)
    assert found == status
    assert list(document) == ["error"]
    assert message in document["error"]
    assert "Traceback" not in document["error"]


def test_a_body_may_come_in_chunks_and_packed(server: Any, classifier: Classifier) -> None:
    image = photo("BMP")
    pieces = [image[start : start + 1000] for start in range(0, len(image), 1000)]
    for body, headers in (
        (pieces, {}),
        (gzip.compress(image), {"Content_Encoding": "gzip"}),
        (zlib.compress(image), {"Content_Encoding": "deflate"}),
    ):
        status, document, _ = post(server, body, **headers)  # type: ignore[arg-type]
        assert status == 200
        assert_answers(document["results"][0], classifier, image)


def test_the_answer_says_how_long_each_stage_took(server: Any) -> None:
    status, _, headers = post(server, photo(size=(800, 600)))
    assert status == 200
    number = r"(\d+\.\d+)"
    found = re.fullmatch(
        f"decode;dur={number}, queue;dur={number}, compute;dur={number}", headers["server-timing"]
    )
    assert found
    decode, queue, compute = map(float, found.groups())
    assert 0 < decode < 10_000
    assert 0 <= queue < 10_000
    assert 0 < compute < 10_000


# Forms


@pytest.mark.parametrize("count", [1, 2, 40])
def test_every_file_of_a_form_is_answered_in_order(
    server: Any, classifier: Classifier, count: int
) -> None:
    files = [(f"{number}.png", photo("PNG", seed=number)) for number in range(count)]
    status, document, headers = post_form(server, files)
    assert status == 200
    assert [result["name"] for result in document["results"]] == [name for name, _ in files]
    for (_, image), result in zip(files, document["results"], strict=True):
        assert_answers(result, classifier, image)
    assert "decode;dur=" in headers["server-timing"]


def test_a_broken_file_costs_its_neighbours_nothing(server: Any, classifier: Classifier) -> None:
    good = [photo(seed=number) for number in range(3)]
    files = [("a", good[0]), ("b", b"words"), ("c", good[1]), ("d", good[2][:500]), ("e", b""),
             ("f", good[2])]  # fmt: skip
    status, document, _ = post_form(server, files)
    assert status == 200
    results = document["results"]
    assert [result["name"] for result in results] == list("abcdef")
    for number, image in ((0, good[0]), (2, good[1]), (5, good[2])):
        assert_answers(results[number], classifier, image)
    for number, message in ((1, "not an image"), (3, "corrupt image"), (4, "empty: 0 bytes")):
        assert set(results[number]) == {"name", "error"}
        assert results[number]["error"].startswith(message)


def test_a_form_of_broken_files_is_refused_with_every_reason(server: Any) -> None:
    status, document, _ = post_form(server, [("a", b"words"), ("b", b"")])
    assert status == 422
    assert [result["name"] for result in document["results"]] == ["a", "b"]
    assert all(set(result) == {"name", "error"} for result in document["results"])


def test_a_damaged_form_is_refused(server: Any) -> None:
    for body, content_type, message in (
        (b"", FORM, "multipart/form-data"),
        (b"words", FORM, "multipart/form-data"),
        (b"words", "multipart/form-data", "expected a boundary"),
        (f"--{BOUNDARY}--\r\n".encode(), FORM, "expected at least one file"),
        (f"--{BOUNDARY}\r\n".encode() + photo(), FORM, "multipart/form-data"),
    ):
        status, document, _ = post(server, body, content_type)
        assert status == 400
        assert list(document) == ["error"]
        assert message in document["error"]


def test_images_of_a_form_are_limited(server: Any) -> None:
    status, document, _ = post_form(server, [("a", b"x")] * 1025)
    assert status == 400
    assert "expected at most 1024 images" in document["error"]


# What can be asked for


@pytest.mark.parametrize("top", [1, 3, 10, 99])
def test_so_many_labels_are_given_as_are_asked_for(
    server: Any, classifier: Classifier, top: int
) -> None:
    image = photo()
    status, document, _ = post(server, image, query=f"?top={top}")
    assert status == 200
    assert_answers(document["results"][0], classifier, image, top=top)
    if top >= 10:
        total = sum(item["probability"] for item in document["results"][0]["top"])
        assert abs(total - 1) < 1e-5


@pytest.mark.parametrize(
    "query",
    [
        "?priority=1",
        "?priority=9",
        "?timeout=5",
        "?timeout=0.5e1",
        "?timeout=99999",
        "?model=letters&version=1",
        "?top=2&priority=3&timeout=10&model=letters",
        "?top=%35",
        "?",
    ],
)
def test_query_fields_are_taken(server: Any, query: str) -> None:
    status, document, _ = post(server, photo(), query=query)
    assert status == 200
    assert document["model"] == "letters"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("?top=0", 400, "top: expected a whole number from 1 to 10, got '0'"),
        ("?top=-1", 400, "top: expected a whole number"),
        ("?top=1.5", 400, "top: expected a whole number"),
        ("?top=five", 400, "top: expected a whole number"),
        ("?top=", 400, "top: expected a whole number"),
        ("?top=%D9%A3", 400, "top: expected a whole number"),
        ("?top=" + "9" * 5000, 400, "top: expected a whole number"),
        ("?priority=0", 400, "priority: expected a whole number from 1 to 9"),
        ("?priority=10", 400, "priority: expected a whole number from 1 to 9"),
        ("?timeout=0", 400, "timeout: expected seconds above 0, got '0'"),
        ("?timeout=-1", 400, "timeout: expected seconds"),
        ("?timeout=nan", 400, "timeout: expected seconds"),
        ("?timeout=inf", 400, "timeout: expected seconds"),
        ("?timeout=1e999", 400, "timeout: expected seconds"),
        ("?timeout=1s", 400, "timeout: expected seconds"),
        ("?timeout=", 400, "timeout: expected seconds"),
        ("?topp=5", 400, "unknown query field 'topp'; expected model, version, top"),
        ("?top=1&top=2", 400, "query field top is given twice"),
        ("?top=%FF", 400, "the query cannot be read"),
        ("?" + "&".join(f"a{number}=1" for number in range(101)), 400, "query"),
        ("?model=numbers", 404, "unknown model 'numbers'; served are: letters"),
        ("?model=", 404, "unknown model ''"),
        ("?model=../letters", 404, "unknown model"),
        ("?version=2", 404, "unknown version '2' of model letters; served are: 1"),
        ("?version=", 404, "unknown version ''"),
        ("?model=letters&version=01", 404, "unknown version '01'"),
    ],
)
def test_wrong_query_fields_are_refused(server: Any, query: str, status: int, message: str) -> None:
    found, document, _ = post(server, photo(), query=query)
    assert found == status
    assert message in document["error"]
    assert len(document["error"]) < 500


def test_several_models_are_told_apart(many: Any, folder: Path) -> None:
    image = photo()
    status, document, _ = post(many, image)
    assert status == 404
    assert "say which" in document["error"]
    assert "letters" in document["error"]
    assert "größe 1" in document["error"]
    for query, path, version in (
        ("?model=letters", "letters/2", "2"),
        ("?model=letters&version=1", "letters/1", "1"),
        (f"?model={quote('größe 1')}", "größe 1/1", "1"),
        ("?model=gr%C3%B6%C3%9Fe+1", "größe 1/1", "1"),
    ):
        status, document, _ = post(many, image, query=query)
        assert status == 200
        assert (document["model"], document["version"]) == (path.split("/")[0], version)
        classifier = Classifier(folder / path / "model.onnx")
        assert_answers(document["results"][0], classifier, image)


def test_answers_below_the_threshold_are_called_uncertain(many: Any, folder: Path) -> None:
    classifier = Classifier(folder / "größe 1" / "1" / "model.onnx")
    files = [(str(number), photo("PNG", seed=number)) for number in range(60)]
    status, document, _ = post_form(many, files, query=f"?model={quote('größe 1')}")
    assert status == 200
    seen = set()
    for (_, image), result in zip(files, document["results"], strict=True):
        uncertain = bool(expected(classifier, image).max() < 0.5)
        assert result["uncertain"] is uncertain
        assert_answers(result, classifier, image)
        assert {item["label"] for item in result["top"]} == set(ODD_LABELS)
        seen.add(uncertain)
    assert seen == {True, False}


def test_a_request_is_over_when_its_timeout_is(
    start: Callable[..., Any], make_bundle: WriteBundle, tmp_path: Path
) -> None:
    slow = start(make_bundle(tmp_path / "slow.onnx", work=60), "--batching", "off")
    status, document, _ = post(slow, photo(), query="?timeout=0.002")
    assert status == 504
    assert "time was over" in document["error"]
    assert post(slow, photo(), query="?timeout=20")[0] == 200
    slow.stop()


def test_many_at_once_get_their_own_answers(server: Any, classifier: Classifier) -> None:
    images = [photo("PNG", seed=number) for number in range(80)]

    def ask(number: int) -> None:
        status, document, _ = post(server, images[number])
        assert status == 200
        assert_answers(document["results"][0], classifier, images[number])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(80)))


def test_pixels_that_are_already_right_are_not_touched(server: Any, classifier: Classifier) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)
    status, document, _ = post(server, encode_png(pixels), query="?top=10")
    assert status == 200
    found = {item["label"]: item["probability"] for item in document["results"][0]["top"]}
    expected = classifier.predict(pixels[None])[0]
    np.testing.assert_allclose([found[name] for name in "abcdefghij"], expected, atol=CLOSE)


# curl


@pytest.fixture
def curl(server: Any) -> Callable[..., Any]:
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")

    def run(*arguments: str | Path) -> Any:
        command = ["curl", "-sS", *map(str, arguments), f"{server.url}/predict"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=30)
        return json.loads(done.stdout)

    return run


def test_curl_just_works(curl: Callable[..., Any], classifier: Classifier, tmp_path: Path) -> None:
    shoe, large, words = tmp_path / "shoe.jpg", tmp_path / "a b;c.bmp", tmp_path / "words.txt"
    shoe.write_bytes(photo())
    large.write_bytes(photo("BMP", size=(1500, 1000)))  # curl asks with "Expect: 100-continue"
    words.write_text("words")
    for option in ("--data-binary", "--upload-file"):
        for path in (shoe, large):
            source = f"@{path}" if option == "--data-binary" else path
            document = curl("-X", "POST", option, source)
            assert_answers(document["results"][0], classifier, path.read_bytes())
    document = curl("-F", f"file=@{shoe}", "-F", f'any=@"{large}"', "-F", f"file=@{words}")
    results = document["results"]
    assert [result["name"] for result in results] == ["shoe.jpg", "a b;c.bmp", "words.txt"]
    assert_answers(results[0], classifier, shoe.read_bytes())
    assert_answers(results[1], classifier, large.read_bytes())
    assert results[2]["error"].startswith("not an image")
    assert curl("--data-binary", f"@{words}")["error"].startswith("not an image")
    assert curl("--compressed", "--http1.0", "--data-binary", f"@{shoe}")["model"] == "letters"
