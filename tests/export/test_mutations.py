"""Mutation test of the gate: one fault in the bundle or in the reader, and the proof must fail.

Bundles are sealed again after each change, so that the digest does not give it away. Faults of the
reader and the server are put into a copy of the package `serve`, which the batch command and the
server of the proof then run.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from PIL import Image

import serve
from export.temperature import Temperature
from export.verify import ParityError, main

EditDocument = Callable[[Path, Callable[[dict[str, Any]], None]], None]
EditGraph = Callable[[Path, Callable[[onnx.ModelProto], None]], None]

SERVE = Path(serve.__file__).parent
CLASSES = ("apple", "brick", "cloud")
KINDS = ("plain", "large", "turned", "alpha", "deep", "grey", "wide", "tall")
SIZES = {"large": (300, 220), "wide": (70, 24), "tall": (22, 64)}
PER_SPLIT = {"train": 3, "val": 1, "test": 1}
BACKGROUND = 60
ORIENTATION = 0x0112

ANSWERS = {"onnx", "batch", "server"}
ALL_OF_THE_BUNDLE = {*ANSWERS, "document"}
FILES = {"batch", "server"}


# Photos of every kind that a reader can get wrong.


def picture(seed: int, label: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Smooth colours with one sharp box, and more of the colour that is the label's."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int64)
    pixels[..., label] += 60
    width, height = size
    top, left = generator.integers(0, height // 2), generator.integers(0, width // 2)
    box = np.s_[top : top + height // 4, left : left + width // 4]
    pixels[box] = generator.integers(0, 256, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def save(folder: Path, kind: str, seed: int, label: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = picture(seed, label, SIZES.get(kind, (40, 30)))
    image = Image.fromarray(pixels)
    path = folder / f"{kind}{seed}"
    if kind == "large":
        image.save(path.with_suffix(".jpg"), quality=90)
        return
    if kind == "turned":
        exif = Image.Exif()
        exif[ORIENTATION] = (6, 8, 3, 5)[seed % 4]
        image.save(path.with_suffix(".jpg"), exif=exif, quality=90)
        return
    if kind == "alpha":
        image.putalpha(Image.fromarray(pixels[::-1, :, 2]))
    elif kind == "deep":
        image = Image.fromarray(pixels[..., label].astype(np.uint16) * 257)
    elif kind == "grey":
        image = image.convert("L")
    image.save(path.with_suffix(".png"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number, (split, count) in enumerate(PER_SPLIT.items()):
        for label, name in enumerate(CLASSES):
            for position, kind in enumerate(KINDS):
                for copy in range(count):
                    seed = 1000 * number + 100 * label + 10 * position + copy
                    save(root / split / name, kind, seed, label)
    return root


def trained(photos: Path, folder: Path, channels: int, *model: str) -> Path:
    from pipeline.run import main as run_pipeline

    options = {
        "data": f"folder:{photos}",
        "run-dir": str(folder / "run"),
        "prepare.image_size": "[16, 12]",
        "prepare.channels": str(channels),
        "prepare.background": str(BACKGROUND),
        "train.epochs": "4",
        "train.batch_size": "8",
        "evaluate.coverage": "0.8",
        "quantize.enabled": "false",
    }
    arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
    assert run_pipeline([*arguments, *model]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def color(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the photos in RGB; read-only."""
    from pipeline.evaluation import evaluate

    # Its 24 validation images support none, and there must be one to get wrong.
    given = Temperature(1.25, 24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "fit_temperature", lambda logits, labels: given)
        run = trained(photos, tmp_path_factory.mktemp("color"), 3, "--model.filters", "[4, 8]")
    found = json.loads((run / "metrics.json").read_bytes())["calibration"]["temperature"]
    assert found == given.value
    return run


@pytest.fixture(scope="module")
def grey(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the same photos in grey; read-only."""
    return trained(photos, tmp_path_factory.mktemp("grey"), 1, "--model.name", "lenet")


# How a fault is put in.


@dataclass(frozen=True)
class Workshop:
    """What is needed to put a fault into a copy of a run."""

    run: Path
    edit_document: EditDocument
    edit_graph: EditGraph
    monkeypatch: pytest.MonkeyPatch

    @property
    def bundle(self) -> Path:
        return self.run / "model.onnx"

    def use_copy(self, file: str, old: str, new: str) -> None:
        """Let the commands of the proof run a copy of `serve` with one text replaced."""
        copy = self.run.parent / "package" / "serve"
        shutil.copytree(SERVE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        text = (copy / file).read_text("utf-8")
        assert text.count(old) == 1, f"{file} has changed: this fault is put in nowhere"
        (copy / file).write_text(text.replace(old, new), "utf-8")
        self.monkeypatch.setattr(serve, "__file__", str(copy / "__init__.py"))


class Fault(Protocol):
    """One fault, and the checks that must fail of it."""

    paths: set[str]
    run: str
    quick: bool

    def put_in(self, workshop: Workshop) -> None: ...


@dataclass(frozen=True)
class Graph:
    """A change of the ONNX model."""

    paths: set[str]
    change: Callable[[onnx.ModelProto], None]
    run: str = "color"
    quick: bool = False

    def put_in(self, workshop: Workshop) -> None:
        workshop.edit_graph(workshop.bundle, self.change)


@dataclass(frozen=True)
class Document:
    """A change of what the bundle says of itself; a mapping is laid over the image spec."""

    paths: set[str]
    change: Callable[[dict[str, Any]], None] | dict[str, Any]
    run: str = "color"
    quick: bool = False

    def put_in(self, workshop: Workshop) -> None:
        change = self.change
        if isinstance(change, dict):
            workshop.edit_document(workshop.bundle, lambda values: values["image"].update(change))
        else:
            workshop.edit_document(workshop.bundle, change)


@dataclass(frozen=True)
class Program:
    """A change of the programs that read images and write answers."""

    paths: set[str]
    file: str
    old: str
    new: str
    run: str = "color"
    quick: bool = False

    def put_in(self, workshop: Workshop) -> None:
        workshop.use_copy(self.file, self.old, self.new)


@dataclass(frozen=True)
class Saved:
    """Another SavedModel than the one of the run."""

    paths: set[str]
    temperature: float
    run: str = "color"
    quick: bool = False

    def put_in(self, workshop: Workshop) -> None:
        from export.saved_model import export_saved_model
        from export.serving_function import load_model

        model = load_model(workshop.run / "model.keras")
        shutil.rmtree(workshop.run / "saved_model")
        export_saved_model(model, workshop.run / "saved_model", self.temperature)


# Faults in the graph.


def nodes(model: onnx.ModelProto, operator: str) -> list[onnx.NodeProto]:
    found = [node for node in model.graph.node if node.op_type == operator]
    assert found, f"no {operator} in the graph"
    return found


def edit_constant(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    change: Callable[[NDArray[np.float32]], None],
    position: int = -1,
) -> None:
    """Change a constant among a node's inputs: the last, or the one at `position`."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names = [name for name in node.input if name in constants]
    tensor = constants[names[position]]
    values = numpy_helper.to_array(tensor).copy()
    before = values.copy()
    change(values)
    assert (values != before).any()
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def one_weight(model: onnx.ModelProto) -> None:
    def change(values: NDArray[np.float32]) -> None:
        values.flat[7] += 0.5

    edit_constant(model, nodes(model, "Conv")[1], change, position=0)


def one_bias(model: onnx.ModelProto) -> None:
    def change(values: NDArray[np.float32]) -> None:
        values[0] += 0.1

    edit_constant(model, nodes(model, "Add")[-1], change)


def swapped_columns(model: onnx.ModelProto) -> None:
    def change(values: NDArray[np.float32]) -> None:
        values[:, [0, 1]] = values[:, [1, 0]]

    edit_constant(model, nodes(model, "MatMul")[-1], change)


def other_mean(model: onnx.ModelProto) -> None:
    def change(values: NDArray[np.float32]) -> None:
        values[1] += 0.05

    edit_constant(model, nodes(model, "Add")[0], change)


def other_scale(model: onnx.ModelProto) -> None:
    def change(values: NDArray[np.float32]) -> None:
        values *= 1.05

    edit_constant(model, nodes(model, "Mul")[0], change)


def no_temperature(model: onnx.ModelProto) -> None:
    makers = {output: node for node in model.graph.node for output in node.output}
    divide = makers[nodes(model, "Softmax")[-1].input[0]]
    assert divide.op_type in ("Mul", "Div")
    edit_constant(model, divide, lambda values: values.fill(1.0))


def other_operator(old: str, new: str, *kept: str) -> Callable[[onnx.ModelProto], None]:
    """Put an operator in the place of the last `old`, with the attributes that both have."""

    def change(model: onnx.ModelProto) -> None:
        node = nodes(model, old)[-1]
        node.op_type = new
        attributes = [item for item in node.attribute if item.name in kept]
        del node.attribute[:]
        node.attribute.extend(attributes)

    return change


def insert_before(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    inserted: Sequence[onnx.NodeProto],
    position: int = 0,
) -> None:
    """Lead an input of `node` through other nodes: from "before" in the first to "after"."""
    source = node.input[position]
    for each in inserted:
        for number, name in enumerate(each.input):
            if name == "before":
                each.input[number] = source
    node.input[position] = "after"
    place = list(model.graph.node).index(node)
    for each in reversed(inserted):
        model.graph.node.insert(place, each)


def constant(model: onnx.ModelProto, name: str, values: NDArray[Any]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(values, name))
    return name


def reversed_channels(model: onnx.ModelProto) -> None:
    order = constant(model, "order", np.array([2, 1, 0]))
    turn = helper.make_node("Gather", ["before", order], ["after"], axis=3)
    insert_before(model, model.graph.node[0], [turn])


def signed_pixels(model: onnx.ModelProto) -> None:
    wrap = helper.make_node("Cast", ["before"], ["after"], to=onnx.TensorProto.INT8)
    insert_before(model, nodes(model, "Cast")[0], [wrap])


def half_precision(model: onnx.ModelProto) -> None:
    nodes(model, "Softmax")[-1].output[0] = "exact"
    for source, target, kind in (
        ("exact", "half", onnx.TensorProto.FLOAT16),
        ("half", "probabilities", onnx.TensorProto.FLOAT),
    ):
        model.graph.node.append(helper.make_node("Cast", [source], [target], to=kind))


def batch_mean(model: onnx.ModelProto) -> None:
    """Batch statistics in place of moving ones, as after an export in training mode."""
    axis = constant(model, "batch_axis", np.array([0]))
    mean = helper.make_node("ReduceMean", ["before", axis], ["mean"])
    subtract = helper.make_node("Sub", ["before", "mean"], ["after"])
    insert_before(model, nodes(model, "Softmax")[-1], [mean, subtract])


def first_of_batch(model: onnx.ModelProto) -> None:
    """A small share of the batch's first image in all others; alone, each is answered rightly."""
    zero = constant(model, "zero", np.array([0]))
    share = constant(model, "share", np.array(0.05, np.float32))
    keep = constant(model, "keep", np.array(0.95, np.float32))
    insert_before(
        model,
        nodes(model, "Softmax")[-1],
        [
            helper.make_node("Gather", ["before", zero], ["first"], axis=0),
            helper.make_node("Mul", ["first", share], ["leak"]),
            helper.make_node("Mul", ["before", keep], ["rest"]),
            helper.make_node("Add", ["rest", "leak"], ["after"]),
        ],
    )


def noise(scale: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        insert_before(
            model,
            nodes(model, "Softmax")[-1],
            [
                helper.make_node("RandomNormalLike", ["before"], ["random"], scale=scale),
                helper.make_node("Add", ["before", "random"], ["after"]),
            ],
        )

    return change


def newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def newer_format(model: onnx.ModelProto) -> None:
    model.ir_version = 11


def shifted_pixels(model: onnx.ModelProto) -> None:
    columns = constant(model, "columns", np.roll(np.arange(12), 1))
    shift = helper.make_node("Gather", ["before", columns], ["after"], axis=2)
    insert_before(model, model.graph.node[0], [shift])


# Faults in the document.


def swapped_names(document: dict[str, Any]) -> None:
    names = document["class_names"]
    names[0], names[2] = names[2], names[0]


def renamed_class(document: dict[str, Any]) -> None:
    document["class_names"][1] = "bricks"


def field(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        assert document[name] != value
        document[name] = value

    return change


def turned_size(document: dict[str, Any]) -> None:
    image = document["image"]
    image["height"], image["width"] = image["width"], image["height"]


def one_channel(document: dict[str, Any]) -> None:
    document["image"]["channels"] = 1
    document["mean"], document["std"] = document["mean"][:1], document["std"][:1]


BACK = "return np.asarray(image, dtype=np.uint8).reshape(spec.shape)"
PIXELS = "np.asarray(image, dtype=np.uint8).reshape(spec.shape)"
PREDICT = "classifier.predict(np.stack(images))"
COLUMNS = "for value in prediction.probabilities]"
GREY_BY_MEAN = """\
if spec.channels == 1 and image.mode == "RGB":
        return Image.fromarray(np.asarray(image).mean(axis=2).astype(np.uint8))
    return image.convert("L" if spec.channels == 1 else "RGB")"""

FAULTS: dict[str, Fault] = {
    # In the graph.
    "one weight": Graph(ANSWERS, one_weight, quick=True),
    "one bias": Graph(ANSWERS, one_bias),
    "two output columns swapped": Graph(ANSWERS, swapped_columns),
    "mean of the normalization": Graph(ANSWERS, other_mean),
    "scale of the normalization": Graph(ANSWERS, other_scale),
    "no temperature": Graph(ANSWERS, no_temperature, quick=True),
    "sigmoid for softmax": Graph(ANSWERS, other_operator("Softmax", "Sigmoid")),
    "no relu": Graph(ANSWERS, other_operator("Relu", "Identity")),
    "average for max pooling": Graph(
        ANSWERS, other_operator("MaxPool", "AveragePool", "kernel_shape", "strides", "auto_pad")
    ),
    "channels reversed at the input": Graph(ANSWERS, reversed_channels),
    "pixels shifted by one at the input": Graph(ANSWERS, shifted_pixels),
    "pixels taken for signed": Graph(ANSWERS, signed_pixels),
    "probabilities in half precision": Graph(ANSWERS, half_precision),
    "mean over the batch": Graph(ANSWERS, batch_mean),
    "leak from the first of a batch": Graph(ANSWERS, first_of_batch, quick=True),
    "noise": Graph({*ALL_OF_THE_BUNDLE, "graph"}, noise(0.1)),
    "noise too small to see": Graph({*ALL_OF_THE_BUNDLE, "graph"}, noise(1e-7), quick=True),
    "operators too new": Graph({"graph"}, newer_opset),
    "file format too new": Graph({"graph"}, newer_format),
    # In the document.
    "class names swapped": Document({*FILES, "document"}, swapped_names, quick=True),
    "class renamed": Document({*FILES, "document"}, renamed_class),
    "temperature in the document": Document({"document"}, field("temperature", 1.0)),
    "mean in the document": Document({"document"}, field("mean", [0.5, 0.5, 0.5])),
    "std in the document": Document({"document"}, field("std", [0.5, 0.5, 0.5])),
    "precision in the document": Document({"document"}, field("precision", "int8")),
    "dataset fingerprint": Document({"document"}, field("dataset_fingerprint", "0" * 64)),
    "resample": Document({*FILES, "document"}, {"resample": "nearest"}, quick=True),
    "resize policy": Document({*FILES, "document"}, {"resize": "stretch"}),
    "padding": Document({*FILES, "document"}, {"resize": "pad"}),
    "background": Document({*FILES, "document"}, {"background": 0}),
    "scaled decoding": Document({*FILES, "document"}, {"scaled_decode": False}),
    "pixel limit": Document({*FILES, "document"}, {"max_pixels": 500}),
    "larger images": Document(ALL_OF_THE_BUNDLE, {"height": 32, "width": 24}),
    "height and width exchanged": Document(ALL_OF_THE_BUNDLE, turned_size),
    "one channel": Document(ALL_OF_THE_BUNDLE, one_channel),
    # In the SavedModel.
    "temperature of the SavedModel": Saved({"saved_model"}, 1.0, quick=True),
    # In the reader.
    "reader: filter": Program(
        FILES,
        "images.py",
        "RESAMPLINGS[spec.resample]",
        "Image.Resampling.BICUBIC",
        quick=True,
    ),
    "reader: crop not centred": Program(
        FILES,
        "images.py",
        "image.resize(size, method, (left, top, right, bottom))",
        "ImageOps.fit(image, size, method, centering=(0, 0))",
    ),
    "reader: aspect ratio ignored": Program(
        FILES,
        "images.py",
        "image.resize(size, method, (left, top, right, bottom))",
        "image.resize(size, method)",
    ),
    "reader: orientation ignored": Program(
        FILES, "images.py", "turn = _TURNS.get(orientation)", "turn = None", quick=True
    ),
    "reader: BGR": Program(FILES, "images.py", BACK, f"{BACK}[..., ::-1]"),
    "reader: pixels shifted by one": Program(
        FILES, "images.py", BACK, f"return np.roll({PIXELS}, 1, axis=1)"
    ),
    "reader: mirrored": Program(FILES, "images.py", BACK, f"return {PIXELS}[:, ::-1]"),
    "reader: grey by the mean": Program(
        FILES,
        "images.py",
        'return image.convert("L" if spec.channels == 1 else "RGB")',
        GREY_BY_MEAN,
        run="grey",
    ),
    "reader: transparent is black": Program(
        FILES, "images.py", "ground = (spec.background,) * 3 + (255,)", "ground = (0, 0, 0, 255)"
    ),
    "reader: transparency ignored": Program(
        FILES, "images.py", "if image.has_transparency_data:", "if False:"
    ),
    "reader: 16 bits clipped": Program(FILES, "images.py", "(wide >> 8)", "wide.clip(0, 255)"),
    "reader: decoded too small": Program(
        FILES, "images.py", "SCALED_DECODE_MARGIN = 2", "SCALED_DECODE_MARGIN = 1"
    ),
    "reader: not decoded at a smaller scale": Program(
        FILES, "images.py", "return spec.scaled_decode and", "return False and"
    ),
    "reader: png refused": Program(
        FILES, "image_formats.py", "for kind in READ if kind", "for kind in READ[:1] if kind"
    ),
    "reader: the bundle's spec ignored": Program(
        {"batch"},
        "batch.py",
        "[start : start + share], classifier.document.image)",
        "[start : start + share], ImageSpec(*classifier.document.image.shape))",
    ),
    "reader: pixels inverted": Program(
        FILES, "classifier.py", "{INPUT: images}", "{INPUT: 255 - images}"
    ),
    "reader: neighbours exchanged": Program(
        {"batch"},
        "batch.py",
        PREDICT,
        f"{PREDICT}[[min(i ^ 1, len(images) - 1) for i in range(len(images))]]",
        quick=True,
    ),
    "reader: last batch dropped": Program(
        {"batch"},
        "batch.py",
        "while batch := ahead.popleft():",
        "while (batch := ahead.popleft()) and ahead[0]:",
    ),
    "reader: columns rotated": Program(
        {"batch"},
        "rows.py",
        f"row += [digits(value) {COLUMNS}",
        "row += [digits(value) for value in np.roll(prediction.probabilities, 1)]",
    ),
    "reader: three digits": Program(
        {"batch"},
        "rows.py",
        "np.format_float_positional(value, unique=True",
        "np.format_float_positional(round(float(value), 3), unique=True",
    ),
    "threshold": Document(
        {"server", "document"}, lambda document: document["rejection"].update(threshold=0.01)
    ),
    "metrics": Document({"document"}, lambda document: document["metrics"].update(accuracy=1.0)),
    "reader: paths exchanged": Program(
        {"batch"},
        "batch.py",
        "yield Prediction(path, next(answers))",
        "yield Prediction(results[-1][0], next(answers))",
    ),
    "reader: second best label": Program(
        {"batch"},
        "rows.py",
        'kind="stable")[:count]',
        'kind="stable")[1 : count + 1]',
    ),
    "reader: unreadable files labelled": Program(
        {"batch"},
        "batch.py",
        "        return error\n",
        "        return np.zeros(spec.shape, np.uint8)\n",
    ),
    # In the server.
    "server: another filter": Program(
        {"server"},
        "http/served.py",
        "read_image(image, self._spec)",
        'read_image(image, dataclasses.replace(self._spec, resample="nearest"))',
    ),
    "server: answers of a batch exchanged": Program(
        {"server"},
        "http/batcher.py",
        "together[end - part.stop",
        "together[::-1][end - part.stop",
        quick=True,
    ),
    "server: files of a request exchanged": Program(
        {"server"}, "http/v2.py", "return np.stack(found)", "return np.stack(found[::-1])"
    ),
    "server: logarithms for probabilities": Program(
        {"server"},
        "http/protocol.py",
        "data = probabilities.ravel()",
        "data = np.log(probabilities).ravel()",
    ),
    "server: columns reversed": Program(
        {"server"},
        "http/protocol.py",
        "data = probabilities.ravel()",
        "data = probabilities[:, ::-1].ravel()",
    ),
    "server: three digits as JSON": Program(
        {"server"}, "http/protocol.py", '["data"] = data', '["data"] = data.round(3)'
    ),
    "server: three digits of a label": Program(
        {"server"},
        "http/predict.py",
        "return float(str(value))",
        "return round(float(value), 3)",
    ),
    "server: names in another order": Program(
        {"server"},
        "http/predict.py",
        "names, rejection = served.document.class_names,",
        "names, rejection = served.document.class_names[::-1],",
    ),
    "server: worst label first": Program(
        {"server"}, "http/predict.py", 'kind="stable")[:top]', 'kind="stable")[:top][::-1]'
    ),
    "server: second best label": Program(
        {"server"}, "http/predict.py", "**ranked[0],", "**ranked[1],"
    ),
    "server: a label left out": Program(
        {"server"}, "http/predict.py", 'kind="stable")[:top]', 'kind="stable")[: top - 1]'
    ),
    "server: never uncertain": Program(
        {"server"}, "http/predict.py", "bool(rejection and", "bool(False and"
    ),
    "server: some fail": Program(
        {"server"},
        "http/predict.py",
        "names, rejection =",
        "assert probabilities.argmax() != 1; names, rejection =",
        quick=True,
    ),
    "server: unreadable files labelled": Program(
        {"server"},
        "http/served.py",
        "            return error\n",
        "            return np.zeros(self._spec.shape, np.uint8)\n",
    ),
    "server: unreadable files are its own fault": Program(
        {"server"}, "http/predict.py", "raise HttpError(422, str(found[0]))", "raise found[0]"
    ),
    "server: a neighbour pays for an unreadable file": Program(
        {"server"},
        "http/served.py",
        "            return error\n",
        "            self._spec = None; return error\n",
    ),
    "server: dies": Program(
        {"server"},
        "http/predict.py",
        "names, images = _images(",
        '__import__("os").kill(__import__("os").getpid(), 9); names, images = _images(',
        quick=True,
    ),
    "server: never starts": Program(
        {"server"},
        "http/server.py",
        "    stop = asyncio.Event()\n",
        "    raise OSError\n",
    ),
    "server: does not end well": Program(
        {"server"}, "http/server.py", "return 1 if cut_off else 0", "return 3"
    ),
}


def cases(faults: dict[str, Fault]) -> list[Any]:
    return [
        pytest.param(fault, id=name, marks=[] if fault.quick else [pytest.mark.slow])
        for name, fault in faults.items()
    ]


@pytest.fixture
def workshop(
    request: pytest.FixtureRequest,
    edit_document: EditDocument,
    edit_graph: EditGraph,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[[str], Workshop]:
    """A copy of a run by its name, and the tools."""

    def make(name: str) -> Workshop:
        ignore = shutil.ignore_patterns("logs", "checkpoints")
        run = Path(shutil.copytree(request.getfixturevalue(name), tmp_path / "run", ignore=ignore))
        return Workshop(run, edit_document, edit_graph, monkeypatch)

    return make


def failed(run: Path) -> set[str]:
    document = json.loads((run / "parity.json").read_bytes())
    checks = document["checks"]
    assert set(checks) == {"saved_model", "onnx", "batch", "server", "graph", "document"}
    for check in checks.values():
        assert bool(check["reason"]) != check["passed"]
    return {name for name, check in checks.items() if not check["passed"]}


def test_there_are_twenty_faults_at_least() -> None:
    assert len(FAULTS) >= 20
    assert sum(isinstance(fault, Program) for fault in FAULTS.values()) >= 10
    assert sum(isinstance(fault, Graph) for fault in FAULTS.values()) >= 10
    assert sum(fault.quick for fault in FAULTS.values()) >= 8


@pytest.mark.parametrize("name", ["color", pytest.param("grey", marks=pytest.mark.slow)])
def test_without_a_fault_the_proof_passes(name: str, workshop: Callable[[str], Workshop]) -> None:
    """With a file that was sealed again, and with a copy of the reader, as the faulty ones have."""
    tools = workshop(name)
    tools.edit_graph(tools.bundle, lambda model: None)
    tools.edit_document(tools.bundle, lambda document: None)
    tools.use_copy("rows.py", 'UNCERTAIN = "uncertain"', 'UNCERTAIN = "uncertain"  # as it was')
    assert main([str(tools.run)]) == 0
    assert failed(tools.run) == set()
    assert tools.bundle.is_file()


@pytest.mark.parametrize("fault", cases(FAULTS))
def test_every_single_fault_is_caught(fault: Fault, workshop: Callable[[str], Workshop]) -> None:
    tools = workshop(fault.run)
    fault.put_in(tools)
    with pytest.raises(ParityError) as caught:
        main([str(tools.run)])
    assert failed(tools.run) == fault.paths
    for path in fault.paths:
        assert f"{path}: " in str(caught.value)
    assert not tools.bundle.exists()


@pytest.mark.slow
def test_the_copy_of_the_reader_is_what_runs(workshop: Callable[[str], Workshop]) -> None:
    tools = workshop("color")
    tools.use_copy(
        "batch.py", "from serve.row_writers import BUNDLE", 'raise SystemExit("copied")  #'
    )
    with pytest.raises(ParityError, match="batch: the batch command failed: copied"):
        main([str(tools.run)])
    assert failed(tools.run) == {"batch"}
