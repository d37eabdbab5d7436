"""What changes images in training is in no exported graph."""

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import numpy_helper

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.saved_model import export_saved_model
from export.serving_function import load_model, serving_function
from export.to_onnx import convert, from_function
from pipeline.config import Config
from pipeline.data.prepare import prepare
from pipeline.input.augment import augment
from pipeline.input.mix import mix
from pipeline.options.augment import AugmentOptions, telling
from pipeline.recipe import load_recipe, resolve
from pipeline.training.build import build_model
from pipeline.training.train import train

AUGMENTATION_IN_TENSORFLOW = {
    "AdjustHue", "Bincount", "DenseBincount", "ImageProjectiveTransformV3", "Multinomial",
    "RandomShuffle", "RandomShuffleQueue", "ReverseV2", "Roll", "StatelessCase", "Case",
}  # fmt: skip
"""Operations of augmentation that no model here is made of, besides random ones."""
AUGMENTATION_IN_ONNX = {"GridSample", "AffineGrid", "If", "Loop", "Scan", "Where", "Round"}


def in_tensorflow(graph: tf.compat.v1.GraphDef) -> set[str]:
    """Every operation of augmentation in a graph and in the functions it calls."""
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    return {
        node.op
        for node in nodes
        if "Random" in node.op or "Shuffle" in node.op or node.op in AUGMENTATION_IN_TENSORFLOW
    }


def in_onnx(model: onnx.ModelProto) -> set[str]:
    return {
        node.op_type
        for node in model.graph.node
        if "Random" in node.op_type or node.op_type in AUGMENTATION_IN_ONNX
    }


def structure(model: onnx.ModelProto) -> list[object]:
    """The whole graph, with tensors numbered in the order in which they come: tf2onnx's own names
    tell how many it had given before in this process.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    numbers: dict[str, int] = {}
    parts: list[object] = [str(model.opset_import), str(model.graph.input), str(model.graph.output)]
    for node in model.graph.node:
        attributes = sorted(item.SerializeToString() for item in node.attribute)
        values = [
            tensors[name].tobytes() if name in tensors else numbers.setdefault(name, len(numbers))
            for name in (*node.input, *node.output)
        ]
        parts.append((node.op_type, values, attributes))
    return parts


def config_of(augmentation: AugmentOptions) -> Config:
    values = {
        "train.epochs": 1,
        "train.schedule": {"name": "constant"},
        "train.batch_size": 256,
        "model.filters": [8, 8],
        "model.convolutions": 1,
        "model.dropout": 0.2,
        "augment": augmentation.model_dump(),
    }
    return resolve(load_recipe("digits"), values)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Trained with every augmentation that there is."""
    run = RunDirectory(tmp_path_factory.mktemp("augmented"))
    config = config_of(telling(8, 8))
    prepare(config, run)
    train(config, run)
    assert json.loads(run.training.read_bytes())["epochs"] == 1
    return run


def without_augmentation(run: RunDirectory) -> keras.Model:
    """The model of a config without any, with the trained weights."""
    keras.backend.clear_session()  # names are counted on
    model = build_model(config_of(AugmentOptions()), PreparedData.open(run.data))
    model.set_weights(load_model(run.model).get_weights())
    return model


def test_the_search_finds_augmentation_where_there_is_some() -> None:
    """So that the tests below can fail."""
    options = telling(8, 8)

    @tf.function(input_signature=[tf.TensorSpec([4, 8, 8, 3], tf.uint8)])
    def augmented(images: tf.Tensor) -> tf.Tensor:
        seed = tf.constant([1, 2], tf.int64)
        images = augment(images, tf.tile(seed[None], [4, 1]), options)
        return mix(images, tf.eye(4), seed, options)[0]

    graph = augmented.get_concrete_function().graph.as_graph_def()
    found = in_tensorflow(graph)
    assert {"StatelessRandomUniformV2", "ImageProjectiveTransformV3", "Roll", "AdjustHue"} <= found

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
    def erased(images: tf.Tensor) -> tf.Tensor:
        noise = tf.random.uniform(tf.shape(images))
        return tf.where(noise < 0.5, tf.round(images), noise)

    assert in_onnx(from_function(erased, list(erased.input_signature)))


def test_the_onnx_graph_is_that_of_a_model_without_augmentation(run: RunDirectory) -> None:
    exported = convert(serving_function(load_model(run.model)), (8, 8, 1))
    assert in_onnx(exported) == set()
    assert [value.name for value in exported.graph.input] == ["image"]
    other = convert(serving_function(without_augmentation(run)), (8, 8, 1))
    assert len(exported.graph.node) > 5
    assert structure(exported) == structure(other)
    scale = other.graph.initializer[0]
    scale.raw_data = bytes(len(scale.raw_data))
    assert structure(exported) != structure(other), "weights count"


def test_the_saved_model_is_that_of_a_model_without_augmentation(
    run: RunDirectory, tmp_path: Path
) -> None:
    graphs = []
    for name, model in (("run", load_model(run.model)), ("plain", without_augmentation(run))):
        export_saved_model(model, tmp_path / name)
        loaded = tf.saved_model.load(str(tmp_path / name))
        graph = loaded.signatures["serving_default"].graph.as_graph_def()
        assert in_tensorflow(graph) == set()
        nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
        graphs.append(sorted(node.op for node in nodes))
    assert graphs[0] == graphs[1]
    assert "Conv2D" in graphs[0]


def test_the_keras_model_answers_the_same_image_the_same(run: RunDirectory) -> None:
    data = PreparedData.open(run.data)
    images = np.repeat(data.images[:1], 16, axis=0)
    answers = load_model(run.model).predict(images, verbose=0)
    np.testing.assert_allclose(answers, answers[:1].repeat(16, axis=0), atol=1e-6)
