"""The search for int8: what it may look at, what it keeps in float, and when it gives up.

Nothing here asks whether int8 is faster; the clock is replaced wherever it would decide.
"""

import json
import logging
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from onnx import numpy_helper

import models
from export import quantize as module
from export import quantizer
from export.prepared_data import PreparedData, evenly_spaced
from export.quantize import Measurement, Quantization, measured, quantize
from export.quantizer import METHODS, OPERATORS, WITH_WEIGHTS, Images, needs_reduced_range
from export.run_directory import RunDirectory
from export.serving_function import serving_function
from export.to_onnx import check_graph, creation_time, export_onnx
from models.options import CnnOptions, LenetOptions, ModelOptions, ResnetOptions
from pipeline import export_stage
from pipeline.config import Config
from serve.bundle import BundleDocument
from serve.classifier import Classifier
from serve.image_spec import ImageSpec

EditGraph = Callable[[Path, Callable[[onnx.ModelProto], None]], None]


def latency(speedup: float, *others: float) -> Measurement:
    """As measured: a speedup for batches of 1, and for batches of 32 if it differs."""
    last = others[0] if others else speedup
    return measured({1: [6.0] * 9, 32: [6.0] * 9}, {1: [6.0 / speedup] * 9, 32: [6.0 / last] * 9})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Decides how fast each trial is: a speedup for all, or one for each in turn."""

    def set_speedups(*speedups: float | tuple[float, float]) -> None:
        def measure(search: Any, session: onnxruntime.InferenceSession) -> Any:
            speedup = speedups[min(len(search.trials), len(speedups) - 1)]
            return latency(*speedup) if isinstance(speedup, tuple) else latency(speedup)

        monkeypatch.setattr(module._Search, "_measure", measure)

    return set_speedups


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., float]], None]:
    """Decides the accuracy of each trial by its operators, method and layers left in float."""

    def set_accuracy(accuracy: Callable[[str, str, tuple[str, ...]], float]) -> None:
        tried: list[tuple[str, str, tuple[str, ...]]] = []
        real = module._Search._try

        def attempt(search: Any, operators: str, method: str, kept: tuple[str, ...] = ()) -> Any:
            tried.append((operators, method, kept))
            return real(search, operators, method, kept)

        def figures(search: Any, session: onnxruntime.InferenceSession) -> tuple[float, float]:
            value = 0.9 if session is search._session else accuracy(*tried[-1])
            return value, 1 - value

        monkeypatch.setattr(module._Search, "_try", attempt)
        monkeypatch.setattr(module._Search, "_figures", figures)

    return set_accuracy


@pytest.fixture(scope="module")
def data(trained_run: Path) -> PreparedData:
    return PreparedData.open(trained_run / "data")


@pytest.fixture
def bundle(trained_run: Path, tmp_path: Path) -> Path:
    """The unproven float bundle of the run, alone in a folder."""
    (tmp_path / "bundle").mkdir()
    path = tmp_path / "bundle" / "model.onnx"
    return Path(shutil.copy(trained_run / "model.unverified.onnx", path))


@pytest.fixture
def search(bundle: Path, data: PreparedData) -> Callable[..., Quantization]:
    """Search on some images of the run; the file, where one is written, lies beside the bundle."""

    def run(**options: Any) -> Quantization:
        validation = data.indices("validation")
        return quantize(
            bundle,
            bundle.with_name("int8.onnx"),
            calibration=Images(data.images, evenly_spaced(data.indices("train"), 64)),
            validation=Images(data.images, validation),
            labels=data.labels[validation],
            **options,
        )

    return run


def layers_with_weights(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type in WITH_WEIGHTS]


def is_quantized(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    makers = {output: each for each in model.graph.node for output in each.output}
    return all(
        name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2]
    )


# What is written.


def test_the_file_is_a_bundle_like_the_float_one(int8_run: Path) -> None:
    float_path, path = int8_run / "model.unverified.onnx", int8_run / "model.int8.unverified.onnx"
    before, after = Classifier(float_path).document, Classifier(path).document
    assert after.precision == "int8"
    assert {**after.to_json(), "precision": "float32"} == before.to_json()
    one, other = onnx.load(float_path), onnx.load(path)
    check_graph(other)
    for model in (one, other):
        for values in (model.graph.input, model.graph.output):
            assert len(values) == 1
    assert one.graph.input[0] == other.graph.input[0]
    assert one.graph.output[0].name == other.graph.output[0].name
    assert one.graph.output[0].type == other.graph.output[0].type
    assert [(item.domain, item.version) for item in other.opset_import] == [("", 18)]
    assert [item.key for item in other.metadata_props] == ["lockstep.bundle"]
    assert path.stat().st_size < 0.5 * float_path.stat().st_size


def test_the_answers_are_near_those_of_the_float_model(int8_run: Path, data: PreparedData) -> None:
    images = np.ascontiguousarray(data.images[:200])
    one = Classifier(int8_run / "model.unverified.onnx").predict(images)
    other = Classifier(int8_run / "model.int8.unverified.onnx").predict(images)
    assert 1e-4 < np.abs(one - other).max() < 0.3
    np.testing.assert_allclose(other.sum(axis=1), 1, atol=1e-5)
    assert (one.argmax(axis=1) == other.argmax(axis=1)).mean() > 0.95


def test_normalization_and_softmax_stay_in_float(int8_run: Path) -> None:
    graph = onnx.load(int8_run / "model.int8.onnx").graph
    makers = {output: node for node in graph.node for output in node.output}

    def upstream(name: str) -> Iterator[onnx.NodeProto]:
        if name in makers:
            yield makers[name]
            for source in makers[name].input:
                yield from upstream(source)

    first = next(node for node in graph.node if node.op_type == "Conv")
    kinds = [node.op_type for node in upstream(first.input[0])]
    assert kinds[:2] == ["DequantizeLinear", "QuantizeLinear"], "the convolution's own input"
    assert kinds[-2:] == ["Cast", "Reshape"], "of one channel, so the layout is a shape"
    assert not {"DequantizeLinear", "QuantizeLinear"} & set(kinds[2:])
    softmax = makers["probabilities"]
    assert softmax.op_type == "Softmax"
    assert graph.output[0].name == softmax.output[0]
    # Between the last layer and the softmax there is the temperature, in float.
    assert makers[softmax.input[0]].op_type in ("Mul", "Div")


def test_weights_are_int8_with_a_scale_for_each_channel(int8_run: Path) -> None:
    graph = onnx.load(int8_run / "model.int8.onnx").graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    makers = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in WITH_WEIGHTS]
    quantized = [node for node in layers if makers[node.input[0]].op_type == "DequantizeLinear"]
    assert len(quantized) >= 4
    for node in quantized:
        dequantize = makers[node.input[1]]
        weights, scales = (constants[name] for name in dequantize.input[:2])
        axis = next(item.i for item in dequantize.attribute if item.name == "axis")
        assert weights.dtype == np.int8
        assert axis == (0 if node.op_type == "Conv" else 1)
        assert scales.shape == (weights.shape[axis],)
        assert len(np.unique(scales)) > 1
        largest = np.abs(weights.astype(int)).max(axis=tuple({*range(weights.ndim)} - {axis}))
        assert (largest >= 63).all(), "a scale that is no fit for its channel"


def test_the_record_says_what_was_done(int8_run: Path) -> None:
    record = json.loads((int8_run / "quantization.json").read_bytes())
    assert record["chosen"]
    assert record["reason"] == ""
    assert record["chosen"] in record["trials"]
    assert record["size"] == {
        "float32": (int8_run / "model.unverified.onnx").stat().st_size,
        "int8": (int8_run / "model.int8.unverified.onnx").stat().st_size,
    }
    assert record["latency_ms"] == {
        "float32": {"1": 2.0, "32": 2.0},
        "int8": {"1": 1.0, "32": 1.0},
    }
    assert record["latency_quartiles_ms"]["int8"] == {"1": [1.0, 1.0], "32": [1.0, 1.0]}
    assert record["chosen"]["speedup"] == {"1": 2.0, "32": 2.0}
    assert record["chosen"]["speedup_low"] == {"1": 2.0, "32": 2.0}
    assert record["was_busy"] is False
    assert record["validation_images"] == 143
    assert record["calibration_images"] == 512


ARCHITECTURES: dict[str, ModelOptions] = {
    "cnn": CnnOptions(filters=[8, 16], dense_units=[12], head="flatten"),
    "cnn-average": CnnOptions(filters=[8, 16], pooling="average", batch_normalization=False),
    "lenet": LenetOptions(),
    "resnet": ResnetOptions(depth=8, width=4),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_can_be_quantized(
    name: str, clock: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "MAX_DROP", 1.0)  # these models know nothing that could be lost
    monkeypatch.setattr(module, "MAX_LOSS_RISE", 100.0)
    clock(2.0)
    shape = (12, 10, 3)
    keras.utils.set_random_seed(3)
    model = models.build(ARCHITECTURES[name], shape, 5, mean=[0.5] * 3, std=[0.25] * 3)
    export_onnx(serving_function(model, 1.5), document(shape, tuple("abcde")), tmp_path / "f.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (40, *shape)).astype(np.uint8)
    images = Images(pixels, np.arange(40))
    result = quantize(
        tmp_path / "f.onnx",
        tmp_path / "i.onnx",
        calibration=images,
        validation=images,
        labels=np.arange(40) % 5,
    )
    assert result.kept, result.reason
    assert {trial.operators for trial in result.trials} <= set(OPERATORS)
    quantized = onnx.load(tmp_path / "i.onnx")
    check_graph(quantized)
    assert any(is_quantized(quantized, node) for node in quantized.graph.node)
    expected = Classifier(tmp_path / "f.onnx").predict(pixels)
    answers = Classifier(tmp_path / "i.onnx").predict(pixels)
    assert 0 < np.abs(answers - expected).max() < 0.2


def document(shape: tuple[int, int, int], class_names: tuple[str, ...]) -> BundleDocument:
    return BundleDocument(
        class_names=class_names,
        image=ImageSpec(*shape),
        mean=(0.5,) * shape[2],
        std=(0.25,) * shape[2],
        dataset_fingerprint="0" * 64,
        config_hash="1" * 64,
        metrics={},
        versions={},
        created=creation_time(),
    )


# What it looks at.


def test_the_same_search_gives_the_same_file(
    search: Callable[..., Quantization], bundle: Path, clock: Callable[..., None]
) -> None:
    clock(2.0, 3.0, 2.5)
    results, contents = [], []
    for _ in range(2):
        results.append(search())
        contents.append(bundle.with_name("int8.onnx").read_bytes())
    assert results[0] == results[1]
    assert contents[0] == contents[1]


def test_only_the_images_that_were_given_are_read(
    search: Callable[..., Quantization],
    data: PreparedData,
    clock: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calibrated: list[NDArray[np.uint8]] = []
    answered: list[NDArray[np.int64]] = []
    real_next, real_answers = quantizer.Reader.get_next, module._answers

    def get_next(reader: Any) -> dict[str, NDArray[np.uint8]] | None:
        batch: dict[str, NDArray[np.uint8]] | None = real_next(reader)
        if batch is not None:
            assert set(batch) == {"image"}
            calibrated.append(batch["image"])
        return batch

    def answers(session: Any, images: Images) -> NDArray[np.float32]:
        answered.append(images.rows)
        return real_answers(session, images)

    monkeypatch.setattr(quantizer.Reader, "get_next", get_next)
    monkeypatch.setattr(module, "_answers", answers)
    clock(2.0)
    result = search()
    expected = data.images[evenly_spaced(data.indices("train"), 64)]
    seen = np.concatenate(calibrated)
    assert len(seen) == 64 * len(result.trials)
    for start in range(0, len(seen), 64):
        np.testing.assert_array_equal(seen[start : start + 64], expected)
    for rows in answered:
        np.testing.assert_array_equal(rows, data.indices("validation"))
    assert (result.calibration_images, result.validation_images) == (64, 143)


@pytest.mark.parametrize(("calibration", "validation"), [(512, 5000), (30, 20)])
def test_the_stage_hands_over_training_and_validation_images(
    calibration: int,
    validation: int,
    run_copy: Path,
    data: PreparedData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: dict[str, Any] = {}

    def spy(bundle: Path, output: Path, **options: Any) -> Quantization:
        handed.update(options, bundle=bundle, output=output)
        return Quantization("spied", 0.5, 1, 1, False)

    monkeypatch.setattr(export_stage, "search_int8", spy)
    options = {"calibration_images": calibration, "validation_images": validation}
    config = Config.model_validate({"quantize": options})
    assert export_stage.quantize(config, RunDirectory(run_copy)) == "int8 not kept: spied"
    assert handed["bundle"] == run_copy / "model.unverified.onnx"
    assert handed["output"] == run_copy / "model.int8.unverified.onnx"
    for split, count in (("train", calibration), ("validation", validation)):
        images = handed["calibration" if split == "train" else "validation"]
        rows = images.rows.tolist()
        assert set(rows) <= set(data.indices(split).tolist())
        assert len(set(rows)) == len(rows) == min(count, len(data.indices(split)))
        assert not set(rows) & set(data.indices("test").tolist())
    np.testing.assert_array_equal(handed["labels"], data.labels[handed["validation"].rows])


def test_the_test_split_takes_no_part(
    run_copy: Path, data: PreparedData, clock: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other test images, even with other labels, give the same file and the same record."""
    clock(2.0)
    monkeypatch.setattr(module, "MAX_DROP", 0.05)
    monkeypatch.setattr(module, "MAX_LOSS_RISE", 100.0)
    run = RunDirectory(run_copy)
    config = Config.model_validate({"quantize": {"calibration_images": 64}})
    test, results = data.indices("test"), []
    for spoilt in (False, True):
        if spoilt:
            images = np.load(run.data / "images.npy")
            images[test] = np.random.default_rng(0).integers(0, 256, images[test].shape)
            np.save(run.data / "images.npy", images)
            labels = np.load(run.data / "labels.npy")
            labels[test] = 0
            np.save(run.data / "labels.npy", labels)
        export_stage.quantize(config, run)
        results.append((run.unverified_int8_bundle.read_bytes(), run.quantization.read_bytes()))
    assert results[0] == results[1]


def test_the_stage_leaves_nothing_where_int8_is_not_asked_for(run_copy: Path) -> None:
    run = RunDirectory(run_copy)
    run.unverified_int8_bundle.write_bytes(b"of an earlier run")
    config = Config.model_validate({"quantize": {"enabled": False}})
    assert export_stage.quantize(config, run) == "not asked for"
    assert not run.unverified_int8_bundle.exists()
    assert json.loads(run.quantization.read_bytes()) is None


def test_the_stage_leaves_no_earlier_file_where_int8_is_not_kept(
    run_copy: Path, clock: Callable[..., None]
) -> None:
    clock(0.5)
    run = RunDirectory(run_copy)
    run.unverified_int8_bundle.write_bytes(b"of an earlier run")
    summary = export_stage.quantize(Config(), run)
    assert summary.startswith("int8 not kept: not faster on this machine: at best 0.50 x")
    assert not run.unverified_int8_bundle.exists()
    assert json.loads(run.quantization.read_bytes())["reason"] == summary.partition(": ")[2]


def test_it_works_in_silence_and_says_what_it_tries(
    search: Callable[..., Quantization],
    bundle: Path,
    clock: Callable[..., None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    clock(2.0)
    before = bundle.read_bytes()
    logged = logging.root.manager.disable
    told: list[str] = []
    search(progress=told.append)
    assert capfd.readouterr().out == ""
    assert logging.root.manager.disable == logged
    assert "convolutions, minmax" in told
    assert bundle.read_bytes() == before
    assert {path.name for path in bundle.parent.iterdir()} == {"model.onnx", "int8.onnx"}


# What it chooses.


@pytest.mark.parametrize(
    ("speedups", "chosen"),
    [
        ((3.0, 2.0, 1.5, 1.1), "convolutions"),
        ((2.0, 3.0, 1.5, 1.1), "convolutions and matrix products"),
        ((2.0, 1.5, 3.0, 1.1), "all but normalization and softmax"),
        (((5.0, 0.9), (1.1, 1.1), (0.9, 5.0), 1.1), "convolutions and matrix products"),
    ],
    ids=["first", "second", "third", "the others are slower at one batch size"],
)
def test_the_fastest_choice_of_operators_is_kept(
    speedups: tuple[Any, ...],
    chosen: str,
    search: Callable[..., Quantization],
    clock: Callable[..., None],
    figures: Callable[..., None],
) -> None:
    clock(*speedups)
    figures(lambda operators, method, kept: 0.9)
    result = search()
    assert result.kept
    assert result.chosen is not None
    assert result.chosen.operators == chosen
    assert [trial.operators for trial in result.trials] == [
        *OPERATORS,
        *[chosen] * (len(METHODS) - 1),
    ]


@pytest.mark.parametrize("method", METHODS)
def test_the_calibration_with_the_best_accuracy_is_kept(
    method: str,
    search: Callable[..., Quantization],
    clock: Callable[..., None],
    figures: Callable[..., None],
) -> None:
    clock(2.0)
    figures(lambda operators, tried, kept: 0.899 if tried == method else 0.897)
    result = search()
    assert result.chosen is not None
    assert result.chosen.method == method
    assert {trial.method for trial in result.trials} == set(METHODS)


def test_the_speed_is_measured_once_for_each_choice_of_layers(
    search: Callable[..., Quantization], clock: Callable[..., None], figures: Callable[..., None]
) -> None:
    clock(2.0, 0.9, 0.9, 0.9)
    figures(lambda operators, method, kept: 0.9 if method == "entropy" else 0.899)
    result = search()
    assert result.chosen is not None
    assert (result.chosen.operators, result.chosen.method) == ("convolutions", "entropy")
    assert result.chosen.speedup == {1: 2.0, 32: 2.0}


@pytest.mark.parametrize("speedup", [0.5, 1.0, (2.0, 0.99), (0.99, 2.0)])
def test_nothing_is_written_where_it_is_not_faster(
    speedup: Any, search: Callable[..., Quantization], bundle: Path, clock: Callable[..., None]
) -> None:
    clock(speedup)
    result = search()
    first, last = speedup if isinstance(speedup, tuple) else (speedup, speedup)
    assert not result.kept
    assert result.chosen is None
    assert result.reason == (
        f"not faster on this machine: at best {first:.2f} x at batch 1 and {last:.2f} x at "
        "batch 32 (convolutions)"
    )
    assert [trial.operators for trial in result.trials] == list(OPERATORS)
    assert not bundle.with_name("int8.onnx").exists()
    assert "int8" not in result.size
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("needed", [1, 2])
def test_layers_are_left_in_float_until_the_accuracy_is_back(
    needed: int,
    search: Callable[..., Quantization],
    bundle: Path,
    clock: Callable[..., None],
    figures: Callable[..., None],
) -> None:
    clock(2.0)
    figures(lambda operators, method, kept: 0.9 if len(kept) >= needed else 0.5)
    result = search()
    assert result.kept
    assert result.chosen is not None
    kept = result.chosen.kept_in_float
    assert len(kept) == needed
    assert [trial.kept_in_float for trial in result.trials if trial.kept_in_float] == [
        kept[: 2**step] for step in range(needed)
    ]
    assert result.trials[-1] == result.chosen
    model = onnx.load(bundle.with_name("int8.onnx"))
    layers = layers_with_weights(bundle.with_name("int8.onnx"))
    asked = {node.name for node in layers if node.op_type in OPERATORS[result.chosen.operators]}
    assert set(kept) < asked
    assert {node.name for node in layers if is_quantized(model, node)} == asked - set(kept)


def test_where_no_layer_in_float_helps_the_reason_is_the_accuracy(
    search: Callable[..., Quantization],
    bundle: Path,
    clock: Callable[..., None],
    figures: Callable[..., None],
) -> None:
    clock(2.0)
    figures(lambda operators, method, kept: 0.5 + 0.01 * len(kept))
    result = search()
    assert not result.kept
    assert result.reason == (
        "less accurate wherever it is faster: accuracy on 143 validation images from 0.900 to "
        "0.520 at best, cross-entropy from 0.100 to 0.480 nats; 0.5 points and 0.05 nats are "
        "allowed"
    )
    assert not bundle.with_name("int8.onnx").exists()
    for operators in OPERATORS:  # each was tried in every way, and then relieved
        trials = [trial for trial in result.trials if trial.operators == operators]
        assert {trial.method for trial in trials} == set(METHODS)
        assert [len(trial.kept_in_float) for trial in trials] == [0, 0, 0, 1, 2]


def test_layers_in_float_that_cost_the_speed_end_the_relief(
    search: Callable[..., Quantization], clock: Callable[..., None], figures: Callable[..., None]
) -> None:
    clock(2.0, 0.5, 0.5, 2.0, 2.0, 0.9)
    figures(lambda operators, method, kept: 0.9 if kept else 0.5)
    result = search()
    assert not result.kept
    assert [len(trial.kept_in_float) for trial in result.trials] == [0, 0, 0, 0, 0, 1]
    assert "less accurate wherever it is faster" in result.reason
    assert "to 0.500" in result.reason, "the slow trial does not count"


def test_at_least_half_of_what_is_quantized_stays_so(
    clock: Callable[..., None], figures: Callable[..., None], tmp_path: Path
) -> None:
    """LeNet has two convolutions and three matrix products: with both convolutions in float,
    and only convolutions asked for, no int8 is left in the file that is called so."""
    clock(3.0, 1.0, 1.0, 3.0)
    figures(lambda operators, method, kept: 0.9 if len(kept) >= 2 else 0.5)
    keras.utils.set_random_seed(3)
    model = models.build(LenetOptions(), (12, 12, 1), 3, mean=[0.5], std=[0.25])
    export_onnx(serving_function(model), document((12, 12, 1), tuple("abc")), tmp_path / "f.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 12, 1)).astype(np.uint8)
    images = Images(pixels, np.arange(20))
    result = quantize(
        tmp_path / "f.onnx",
        tmp_path / "i.onnx",
        calibration=images,
        validation=images,
        labels=np.arange(20) % 3,
    )
    if result.kept:
        model = onnx.load(tmp_path / "i.onnx")
        assert any(is_quantized(model, node) for node in layers_with_weights(tmp_path / "i.onnx"))


def test_a_channel_that_outshines_the_others_is_left_in_float(
    search: Callable[..., Quantization],
    bundle: Path,
    edit_graph: EditGraph,
    clock: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One channel a thousand times as large, and what reads it a thousand times as small: the same
    function in float, but 8 bits for the whole tensor leave nothing for the other channels."""
    clock(2.0)
    monkeypatch.setattr(module, "MAX_DROP", 0.03)
    monkeypatch.setattr(module, "MAX_LOSS_RISE", 100.0)
    names: list[str] = []

    def outshine(model: onnx.ModelProto) -> None:
        constants = {item.name: item for item in model.graph.initializer}
        first, second = [node for node in model.graph.node if node.op_type == "Conv"][:2]
        names.extend((first.name, second.name))
        for name, index, factor in (
            (first.input[1], np.s_[:1], 1000),
            (first.input[2], np.s_[:1], 1000),
            (second.input[1], np.s_[:, :1], 1 / 1000),
        ):
            values = numpy_helper.to_array(constants[name]).copy()
            values[index] *= np.float32(factor)
            if name == first.input[2]:
                values[index] = np.abs(values[index]) + 1000  # so that it is not always zero
            constants[name].CopyFrom(numpy_helper.from_array(values, name))

    edit_graph(bundle, outshine)
    result = search()
    assert result.float_accuracy > 0.8
    whole = [trial for trial in result.trials if not trial.kept_in_float]
    assert max(trial.accuracy for trial in whole) < result.float_accuracy - 0.03
    assert result.kept, result.reason
    assert result.chosen is not None
    assert set(names) <= set(result.chosen.kept_in_float)
    assert result.chosen.accuracy >= result.float_accuracy - 0.03


def test_a_graph_without_weights_is_left_alone(tmp_path: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec([None, 6, 5, 3], tf.uint8, name="image")])
    def mean_color(image: tf.Tensor) -> dict[str, tf.Tensor]:
        means = tf.reduce_mean(tf.cast(image, tf.float32) / 255, axis=[1, 2])
        return {"probabilities": tf.nn.softmax(means)}

    path = tmp_path / "model.onnx"
    export_onnx(mean_color, document((6, 5, 3), tuple("rgb")), path)
    images = Images(np.zeros((3, 6, 5, 3), np.uint8), np.arange(3))
    result = quantize(
        path,
        tmp_path / "int8.onnx",
        calibration=images,
        validation=images,
        labels=np.zeros(3, np.int64),
    )
    assert not result.kept
    assert result.trials == []
    assert result.reason == "the graph has no operator that is worth quantizing"
    assert not (tmp_path / "int8.onnx").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_few_and_empty_images_are_enough_to_calibrate(
    count: int,
    bundle: Path,
    data: PreparedData,
    clock: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock(2.0)
    monkeypatch.setattr(module, "MAX_DROP", 1.0)
    monkeypatch.setattr(module, "MAX_LOSS_RISE", 100.0)
    validation = data.indices("validation")
    result = quantize(
        bundle,
        bundle.with_name("int8.onnx"),
        calibration=Images(np.zeros((count, 8, 8, 1), np.uint8), np.arange(count)),
        validation=Images(data.images, validation),
        labels=data.labels[validation],
    )
    assert result.kept
    images = np.ascontiguousarray(data.images[:5])
    assert np.isfinite(Classifier(bundle.with_name("int8.onnx")).predict(images)).all()


# The range of the weights.


VNNI = "flags\t\t: fpu avx2 avx512f avx512_vnni"
NEWER = "flags\t\t: fpu avx2 avx_vnni"
OLDER = "flags\t\t: fpu sse4_2 avx avx2 avx512f avx512bw"


@pytest.mark.parametrize(
    ("machine", "features", "expected"),
    [
        ("x86_64", VNNI, False),
        ("x86_64", NEWER, False),
        ("x86_64", OLDER, True),
        ("x86_64", None, True),
        ("AMD64", OLDER, True),
        ("AMD64", None, True),
        ("aarch64", OLDER, False),
        ("arm64", None, False),
    ],
)
def test_weights_lose_a_bit_where_products_could_overflow(
    machine: str, features: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_text(path: Path, *arguments: Any) -> str:
        assert path == Path("/proc/cpuinfo")
        if features is None:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return features

    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert needs_reduced_range() == expected


@pytest.mark.parametrize(("reduced", "largest"), [(True, 64), (False, 127)])
def test_the_range_of_the_weights_is_the_one_that_was_decided(
    reduced: bool,
    largest: int,
    search: Callable[..., Quantization],
    bundle: Path,
    clock: Callable[..., None],
    figures: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock(2.0)
    figures(lambda operators, method, kept: 0.9)
    monkeypatch.setattr(module, "needs_reduced_range", lambda: reduced)
    assert search().reduced_range == reduced
    weights = [
        np.abs(numpy_helper.to_array(item).astype(int)).max()
        for item in onnx.load(bundle.with_name("int8.onnx")).graph.initializer
        if item.data_type == onnx.TensorProto.INT8 and len(item.dims) > 1
    ]
    assert len(weights) >= 4
    assert abs(max(weights) - largest) <= 1
