"""The bundle's document: what it says survives JSON, what is wrong with it is named, and the seal
tells of every change."""

import dataclasses
import json
import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve.bundle import (
    ADDED_IN_FORMAT_2,
    DIGEST,
    FORMAT,
    METADATA_KEY,
    PRECISIONS,
    BundleDocument,
    BundleError,
    Rejection,
    read_document,
    seal,
)
from serve.command import LockstepError
from serve.image_spec import ImageSpec
from serve.onnx_file import outline, with_entry, without_entry

DOCUMENT = BundleDocument(
    class_names=("cat", "dog, small", "naïve\n犬"),
    image=ImageSpec(28, 32, 3, "pad", "lanczos", 12, 1000),
    mean=(0.1, 0.2, 1 / 3),
    std=(1.0, 0.25, 1e-7),
    dataset_fingerprint="ab" * 32,
    config_hash="cd" * 32,
    metrics={"accuracy": 0.9, "examples": 359},
    versions={"keras": "3.15.1"},
    created="2026-02-03T04:05:06+00:00",
    temperature=1.25,
    rejection=Rejection(threshold=0.75, coverage=0.9, accuracy=1.0),
    precision="int8",
    parity={"onnx": {"max_difference": 1e-7, "examples": 359}, "batch": {}},
)
MINIMAL = {"class_names", "image", "mean", "std", "dataset_fingerprint", "config_hash", "metrics",
           "versions", "created"}  # fmt: skip
FIELDS = [field.name for field in dataclasses.fields(BundleDocument)]


def plain() -> dict[str, Any]:
    return DOCUMENT.to_json()


def refusal(document: object) -> str:
    """Why `document`, plain values, is refused: one line."""
    with pytest.raises(BundleError) as caught:
        BundleDocument.from_json(document)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


def test_the_document_survives_json() -> None:
    again = BundleDocument.from_json(json.loads(json.dumps(DOCUMENT.to_json())))
    assert again == DOCUMENT
    assert isinstance(again.class_names, tuple)
    assert isinstance(again.image, ImageSpec)
    assert isinstance(again.rejection, Rejection)
    assert again.format == FORMAT


def test_the_document_is_plain_values_under_the_names_of_its_fields() -> None:
    document = plain()
    assert list(document) == FIELDS
    assert document["class_names"] == ["cat", "dog, small", "naïve\n犬"]
    assert document["image"] == DOCUMENT.image.to_json()
    assert document["rejection"] == {"threshold": 0.75, "coverage": 0.9, "accuracy": 1.0}
    assert DIGEST not in document


def test_what_is_not_said_has_a_neutral_value() -> None:
    short = BundleDocument(**{name: getattr(DOCUMENT, name) for name in MINIMAL})
    assert (short.temperature, short.rejection, short.precision) == (1.0, None, "float32")
    assert short.parity == {}
    assert BundleDocument.from_json(short.to_json()) == short


def test_whole_numbers_are_read_as_floats() -> None:
    again = BundleDocument.from_json({**plain(), "mean": [0, 1, 2], "temperature": 2})
    assert again.mean == (0.0, 1.0, 2.0)
    assert all(type(value) is float for value in (*again.mean, again.temperature))


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
        *(("mean", value) for value in (None, 0.5, "0.5", ["0.5"], [None], [[0.5]], [True], [])),
        *(("std", value) for value in (None, {}, [float("nan")], [float("inf")], [10**400])),
        *(("dataset_fingerprint", value) for value in (None, 5, ["ab"], {})),
        *(("config_hash", value) for value in (None, 5, True)),
        *(("metrics", value) for value in (None, [], "x", {"accuracy": "0.9"}, {"a": None})),
        *(("versions", value) for value in (None, [], {"keras": 3}, {"keras": None})),
        *(("created", value) for value in (None, 20260203, [], {})),
        *(("temperature", value) for value in (None, "1", [1.0], True, float("nan"), 10**400)),
        *(("temperature", value) for value in (0, 0.0, -1, -1e-9)),
        *(("precision", value) for value in (None, "", "INT8", "float16", 8, ["int8"], {})),
        *(("parity", value) for value in (None, [], "x", 1)),
    ],
)
def test_an_ill_typed_field_is_named(field: str, value: object) -> None:
    assert refusal({**plain(), field: value}).startswith(
        f"the bundle's document: expected {field} to be "
    )


@pytest.mark.parametrize("figures", [None, [], "x", {"a": "1"}, {"a": None}, {"a": {"b": 1}}])
def test_the_figures_of_every_path_are_numbers(figures: object) -> None:
    assert refusal({**plain(), "parity": {"onnx": {"a": 1}, "batch": figures}}).startswith(
        "the bundle's document: expected parity to be a mapping of names to numbers, got "
    )


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_read(precision: str) -> None:
    assert BundleDocument.from_json({**plain(), "precision": precision}).precision == precision


def rejection(**changes: object) -> dict[str, object]:
    return {"threshold": 0.5, "coverage": 0.9, "accuracy": 0.99, **changes}


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        "0.5",
        [],
        {},
        {"threshold": 0.5},
        rejection(more=0.5),
        *(rejection(threshold=bad) for bad in (-0.1, 1.01, "0.5", None, True, float("nan"))),
        *(rejection(coverage=bad) for bad in (-1, 2, [0.5])),
        *(rejection(accuracy=bad) for bad in (-1, 99.0, {})),
    ],
    ids=repr,
)
def test_a_rejection_is_three_shares(value: object) -> None:
    assert refusal({**plain(), "rejection": value}).startswith(
        "the bundle's document: expected rejection to be null or shares named accuracy, coverage, "
        "threshold, got "
    )


@pytest.mark.parametrize("share", [0, 1, 0.0, 1.0])
def test_a_rejection_may_reach_its_ends(share: float) -> None:
    value = {"threshold": share, "coverage": share, "accuracy": share}
    document = BundleDocument.from_json({**plain(), "rejection": value})
    assert document.rejection == Rejection(share, share, share)
    assert BundleDocument.from_json({**plain(), "rejection": None}).rejection is None


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_mean_and_std_have_a_number_for_each_channel(field: str, count: int) -> None:
    reason = refusal({**plain(), field: [0.5] * count})
    assert f"expected {field} to be one number for each of 3 channels, got " in reason


def test_a_grey_image_has_one_mean() -> None:
    image = {**plain()["image"], "channels": 1}
    assert "expected mean to be one number for each of 1 channels" in refusal(
        {**plain(), "image": image}
    )
    grey = BundleDocument.from_json({**plain(), "image": image, "mean": [0.5], "std": [1]})
    assert (grey.mean, grey.std) == ((0.5,), (1.0,))


@pytest.mark.parametrize("std", [[1, 1, 0], [0.0, 1, 1], [1, -0.5, 1]])
def test_a_deviation_is_above_zero(std: list[float]) -> None:
    assert "expected std to be above 0, got " in refusal({**plain(), "std": std})


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


@pytest.mark.parametrize("version", [0, FORMAT + 1, "1", None, [FORMAT], True, False])
def test_another_format_is_refused_first(version: object) -> None:
    reason = refusal({"format": version, "fields": "of the future"})
    assert reason.startswith(f"expected a bundle of format 1 or {FORMAT}, got {version!r}; ")


@pytest.mark.parametrize("document", [None, 1, [], "format", ["format"], {}, {"Format": 1}])
def test_what_is_no_document_is_refused(document: object) -> None:
    assert refusal(document) == "the bundle's document has no field 'format'"


@pytest.mark.parametrize(
    "changes",
    [
        {"config_hash": ["x" * 10_000]},
        {"image": {**plain()["image"], "resize": "x" * 10_000}},
        {"image": {**plain()["image"], "height": "x" * 10_000}},
        {"image": {**plain()["image"], "background": [0] * 10_000}},
        {"image": "x" * 10_000},
        {"x" * 10_000: 1},
        {"created": {}, **{f"unknown {number}": 1 for number in range(1000)}},
    ],
    ids=lambda changes: ", ".join(changes)[:20],
)
def test_a_long_bad_value_is_shown_in_part(changes: dict[str, object]) -> None:
    assert len(refusal({**plain(), **changes})) < 1000


def test_the_error_is_one_for_people() -> None:
    assert issubclass(BundleError, LockstepError)
    assert BundleError.exit_code == 2


# The seal


def small_model(**metadata: str) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
            initializer=[numpy_helper.from_array(np.array([1, 2], np.float32), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    helper.set_model_props(made, metadata)
    return bytes(made.SerializeToString())


CHANGED = (
    "its content does not match the digest in its document: it was damaged or changed after it "
    "was exported; copy it again, or export it again"
)


def text_in(content: bytes) -> str:
    """The document as it stands in the file."""
    entries = onnx.load_model_from_string(content).metadata_props
    (text,) = [entry.value for entry in entries if entry.key == METADATA_KEY]
    return str(text)


def read(content: bytes) -> BundleDocument:
    return read_document(content, text_in(content))


def seal_refusal(content: bytes, text: str | None = None) -> str:
    with pytest.raises(BundleError) as caught:
        read_document(content, text_in(content) if text is None else text)
    reason = str(caught.value)
    assert reason and "\n" not in reason
    return reason


def with_text(content: bytes, text: str) -> bytes:
    return with_entry(without_entry(content, METADATA_KEY), METADATA_KEY, text)


def test_a_sealed_document_is_read_back() -> None:
    sealed = seal(small_model(author="someone"), plain())
    assert read(sealed) == DOCUMENT
    assert list(outline(sealed).metadata) == ["author", METADATA_KEY]
    assert without_entry(sealed, METADATA_KEY) == small_model(author="someone")


def test_a_document_replaces_the_one_before() -> None:
    once = seal(small_model(), plain())
    changed = {**plain(), "temperature": 2.0}
    again = seal(once, changed)
    assert read(again).temperature == 2.0
    assert again == seal(small_model(), changed) != once
    assert seal(again, plain()) == once


def test_the_order_of_the_fields_does_not_matter() -> None:
    backwards = dict(reversed(plain().items()))
    assert seal(small_model(), backwards) == seal(small_model(), plain())
    sealed = seal(small_model(), plain())
    fields = json.loads(text_in(sealed))
    spaced = json.dumps(dict(reversed(fields.items())), indent=2)
    assert read(with_text(sealed, spaced)) == DOCUMENT


def test_an_old_digest_in_the_document_is_replaced() -> None:
    assert seal(small_model(), {**plain(), DIGEST: "old"}) == seal(small_model(), plain())


CHANGES: dict[str, Any] = {
    "class_names": ["cat", "dog", "犬"],
    "image": {**plain()["image"], "background": 13},
    "mean": [0.1, 0.2, 0.3],
    "std": [1.0, 0.25, 2e-7],
    "dataset_fingerprint": "",
    "config_hash": "",
    "metrics": {},
    "versions": {},
    "created": "",
    "temperature": 1.0,
    "rejection": None,
    "precision": "float32",
    "parity": {},
    "verdict": [{"name": "calibrated", "status": "unknown", "text": "20 test images."}],
}
MULTI_LABEL = {"task": "multi-label", "thresholds": [0.5, 0.25, 1]}


@pytest.mark.parametrize(
    "changes",
    [*({name: value} for name, value in CHANGES.items()), MULTI_LABEL],
    ids=[*CHANGES, "task and thresholds"],
)
def test_a_field_that_is_changed_without_a_new_seal_is_noticed(changes: dict[str, Any]) -> None:
    sealed = seal(small_model(), plain())
    fields = {**json.loads(text_in(sealed)), **changes}
    assert seal_refusal(with_text(sealed, json.dumps(fields))) == CHANGED
    again = read(seal(sealed, fields))
    assert all(getattr(again, field) != getattr(DOCUMENT, field) for field in changes)


def test_every_field_of_the_document_was_changed() -> None:
    assert {*CHANGES, *MULTI_LABEL, "format"} == set(FIELDS)


def test_a_document_of_format_1_is_of_a_single_label_without_a_verdict() -> None:
    old = {name: value for name, value in plain().items() if name not in ADDED_IN_FORMAT_2}
    assert BundleDocument.from_json({**old, "format": 1}) == DOCUMENT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "detection"}, "task to be one of single-label, multi-label, got 'detection'"),
        ({"task": "multi-label"}, "thresholds to be one number for each label"),
        ({"thresholds": [0.5, 0.5, 0.5]}, "thresholds to be one number for each label"),
        ({**MULTI_LABEL, "thresholds": [0.5, 0.5]}, "thresholds to be one number for each label"),
        ({**MULTI_LABEL, "thresholds": [0.5, 0.5, 1.5]}, "thresholds to be a list of numbers"),
        ({**MULTI_LABEL, "thresholds": 0.5}, "thresholds to be a list of numbers from 0 to 1"),
        ({"verdict": {}}, "verdict to be a list of texts named name, status, text, got {}"),
        ({"verdict": [{"name": "a", "status": "good"}]}, "verdict to be a list of texts"),
        ({"verdict": [{"name": "a", "status": "fine", "text": "b"}]}, "verdict to be a list"),
        ({"verdict": [{"name": "a", "status": "good", "text": 1}]}, "verdict to be a list"),
    ],
    ids=str,
)
def test_task_thresholds_and_verdict_are_checked(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BundleError, match=re.escape(reason)):
        BundleDocument.from_json({**plain(), **changes})


def test_a_changed_weight_is_noticed() -> None:
    sealed = seal(small_model(), plain())
    weight = np.array([1, 2], np.float32).tobytes()
    assert sealed.count(weight) == 1
    changed = sealed.replace(weight, np.array([1, 3], np.float32).tobytes())
    assert outline(changed) == outline(sealed)
    assert seal_refusal(changed) == CHANGED


@pytest.mark.parametrize(
    "more",
    [b"\x32\x01x", with_entry(b"", "author", "someone"), with_entry(b"", "", "")],
    ids=["bytes", "entry", "empty entry"],
)
def test_appended_bytes_are_noticed(more: bytes) -> None:
    sealed = seal(small_model(), plain())
    assert seal_refusal(sealed + more) == CHANGED
    assert seal_refusal(more + sealed) == CHANGED
    assert read(seal(sealed + more, plain())) == DOCUMENT


def test_an_entry_that_is_taken_out_is_noticed() -> None:
    sealed = seal(small_model(author="someone"), plain())
    assert seal_refusal(without_entry(sealed, "author")) == CHANGED


@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_changes_what_is_read(bit: int) -> None:
    sealed = seal(small_model(author="someone"), plain())
    read_the_same = 0
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1 << bit
        try:
            file = outline(bytes(changed))
            again = read_document(bytes(changed), file.metadata.get(METADATA_KEY, ""))
        except LockstepError:
            continue
        assert again == DOCUMENT
        read_the_same += 1
    assert read_the_same <= 10  # JSON has two ways to write 1e-07


@pytest.mark.parametrize("digest", [None, "", 5, [], "0" * 64])
def test_a_wrong_digest_is_refused(digest: object) -> None:
    content = with_text(small_model(), json.dumps({**plain(), DIGEST: digest}))
    assert seal_refusal(content) == CHANGED


def test_a_document_without_a_digest_is_refused() -> None:
    assert seal_refusal(with_text(small_model(), json.dumps(plain()))) == CHANGED


def test_a_digest_in_capitals_is_another_one() -> None:
    sealed = seal(small_model(), plain())
    fields = json.loads(text_in(sealed))
    fields[DIGEST] = fields[DIGEST].upper()
    assert seal_refusal(with_text(sealed, json.dumps(fields))) == CHANGED


def test_a_bad_field_is_named_before_the_digest() -> None:
    sealed = seal(small_model(), {**plain(), "temperature": "warm"})
    assert "expected temperature to be a number" in seal_refusal(sealed)
    assert "expected temperature to be a number" in seal_refusal(sealed + b"\x32\x01x")


@pytest.mark.parametrize("text", ["", "{", "not json", '{"format": 1,}', "\0", '{"format": 1} x'])
def test_what_is_not_json_is_refused(text: str) -> None:
    assert seal_refusal(b"", text).startswith("the bundle's document is not JSON: ")


@pytest.mark.parametrize("text", ["null", "1", "[]", '"format"', '["format"]', "{}"])
def test_json_that_is_no_document_is_refused(text: str) -> None:
    assert seal_refusal(b"", text) == "the bundle's document has no field 'format'"


@pytest.mark.parametrize("depth", [50, 900, 100_000])
@pytest.mark.parametrize("field", ["class_names", "image", "mean", "metrics", "format", "parity",
                                   "rejection", "temperature", DIGEST])  # fmt: skip
def test_deep_nesting_is_refused(field: str, depth: int) -> None:
    text = json.dumps({**plain(), field: "HERE"})
    assert len(seal_refusal(b"", text.replace('"HERE"', "[" * depth + "]" * depth))) < 400


def test_a_number_without_end_is_refused() -> None:
    text = json.dumps({**plain(), "temperature": "HERE"}).replace('"HERE"', "9" * 5000)
    assert len(seal_refusal(b"", text)) < 400
