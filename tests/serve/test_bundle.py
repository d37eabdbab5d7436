"""The bundle's document: what it says survives JSON, and what is wrong with it is named."""

import dataclasses
import json
from typing import Any

import pytest

from serve.bundle import FORMAT, BundleDocument, BundleError
from serve.command import LockstepError
from serve.images import ImageSpec

DOCUMENT = BundleDocument(
    class_names=("cat", "dog, small", "naïve\n犬"),
    image=ImageSpec(28, 32, 3, "pad", "lanczos", 12, 1000),
    mean=(0.1, 0.2, 1 / 3),
    std=(1.0, 0.25, 1e-7),
    dataset_fingerprint="ab" * 32,
    config_hash="cd" * 32,
    metrics={"accuracy": 0.9, "examples": 359},
    versions={"keras": "3.15.1"},
)
FIELDS = [field.name for field in dataclasses.fields(BundleDocument)]


def plain() -> dict[str, Any]:
    return dict(json.loads(DOCUMENT.to_json()))


def refusal(document: object) -> str:
    """Why `document` (JSON text, or a value to be written as JSON) is refused: one line."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(BundleError) as caught:
        BundleDocument.from_json(text)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


def test_the_document_survives_json() -> None:
    again = BundleDocument.from_json(DOCUMENT.to_json())
    assert again == DOCUMENT
    assert isinstance(again.class_names, tuple)
    assert isinstance(again.image, ImageSpec)
    assert again.format == FORMAT


def test_the_json_text_is_always_the_same() -> None:
    reordered = dataclasses.replace(DOCUMENT, metrics={"examples": 359, "accuracy": 0.9})
    assert reordered.to_json() == DOCUMENT.to_json()


def test_whole_numbers_are_read_as_floats() -> None:
    again = BundleDocument.from_json(json.dumps({**plain(), "mean": [0, 1, 2]}))
    assert again.mean == (0.0, 1.0, 2.0)
    assert all(type(value) is float for value in again.mean)


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(field: str) -> None:
    document = plain()
    del document[field]
    assert f"'{field}'" in refusal(document)


def test_an_unknown_field_is_named() -> None:
    assert "unknown ['flavour']" in refusal({**plain(), "flavour": "sweet"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("class_names", value) for value in (None, "cat", [], [1], ["a", None], {"a": 1})),
        *(("mean", value) for value in (None, 0.5, "0.5", ["0.5"], [None], [[0.5]], [True])),
        *(("std", value) for value in (None, {}, [float("nan")], [float("inf")], [10**400])),
        *(("dataset_fingerprint", value) for value in (None, 5, ["ab"], {})),
        *(("config_hash", value) for value in (None, 5, True)),
        *(("metrics", value) for value in (None, [], "x", {"accuracy": "0.9"}, {"a": None})),
        *(("versions", value) for value in (None, [], {"keras": 3}, {"keras": None})),
    ],
)
def test_an_ill_typed_field_is_named(field: str, value: object) -> None:
    assert refusal({**plain(), field: value}).startswith(
        f"the bundle's document: expected {field} to be "
    )


def test_class_names_must_differ() -> None:
    reason = refusal({**plain(), "class_names": ["cat", "dog", "cat"]})
    assert "class_names to be without repetition" in reason


@pytest.mark.parametrize("value", [None, [], "8x8", {}, {"height": 8}])
def test_an_image_spec_of_another_form_is_refused(value: object) -> None:
    assert "image spec: expected the fields" in refusal({**plain(), "image": value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("height", 0), ("width", 8.5), ("channels", 2), ("channels", True), ("resize", "squeeze")],
)
def test_a_bad_value_in_the_image_spec_is_named(field: str, value: object) -> None:
    document = plain()
    document["image"][field] = value
    assert f"the bundle's document: image spec: expected {field} " in refusal(document)


@pytest.mark.parametrize("version", [0, FORMAT + 1, "1", None, [FORMAT]])
def test_another_format_is_refused_first(version: object) -> None:
    reason = refusal({"format": version, "fields": "of the future"})
    assert reason.startswith(f"expected a bundle of format {FORMAT}, got {version!r}; ")


@pytest.mark.parametrize("text", ["", "{", "not json", '{"format": 1,}', "\0", '{"format": 1} x'])
def test_what_is_not_json_is_refused(text: str) -> None:
    assert refusal(text).startswith("the bundle's document is not JSON: ")


@pytest.mark.parametrize("text", ["null", "1", "[]", '"format"', '["format"]', "{}"])
def test_json_that_is_no_document_is_refused(text: str) -> None:
    assert refusal(text) == "the bundle's document has no field 'format'"


@pytest.mark.parametrize("depth", [50, 900, 100_000])
@pytest.mark.parametrize("field", ["class_names", "image", "mean", "metrics", "format"])
def test_deep_nesting_is_refused(field: str, depth: int) -> None:
    text = json.dumps({**plain(), field: "HERE"})
    assert len(refusal(text.replace('"HERE"', "[" * depth + "]" * depth))) < 400


def test_a_long_bad_value_is_shown_in_part() -> None:
    assert len(refusal({**plain(), "config_hash": ["x" * 10_000]})) < 300


def test_the_error_is_one_for_people() -> None:
    assert issubclass(BundleError, LockstepError)
    assert BundleError.exit_code == 2
