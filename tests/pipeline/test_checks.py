"""What is wrong with a config is said before prepare: in one line, and nothing is made."""

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from models import backbones
from models.options import PretrainedOptions
from pipeline import find_lr, run
from pipeline.compare.command import main as compare_main
from pipeline.recipe import ConfigError
from pipeline.sweep.command import main as sweep_main
from serve.command import LockstepError

PRETRAINED = ("--model.name", "pretrained", "--prepare.image_size", "96")
IMPOSSIBLE = [
    ([*PRETRAINED, "--model.backbone", "mobilenetV2"], "did you mean MobileNetV2?"),
    ([*PRETRAINED, "--model.weights", "some.pkl"], "imagenet, none or a .weights.h5 file"),
    ([*PRETRAINED, "--model.weights", "no.weights.h5"], "no.weights.h5: no such weights file"),
    ([*PRETRAINED, "--model.weights", "text.weights.h5"], "not an HDF5 file"),
    ([*PRETRAINED, "--model.backbone", "Xception", "--prepare.image_size", "70"], "71x71"),
    (["--model.name", "pretrained", "--model.weights", "none"], "for images of 8x8"),
    (["--model.name", "resnet", "--model.depth", "9"], "nearest are 8 and 14"),
    (["--model.name", "wide-resnet", "--model.depth", "12"], "nearest are 10 and 16"),
    (["--model.name", "lenet", "--prepare.image_size", "3"], "images of at least 4x4, got 3x3"),
    (["--model.name", "resnet", "--prepare.image_size", "3x9"], "of at least 4x4, got 3x9"),
    (["--model.name", "fast", "--prepare.image_size", "5"], "at least 6x6, got 5x5 for 3 stages"),
    (["--model.filters", "8,8", "--model.convolutions", "[1]"], "each of the 2 stages"),
    (["--model.filters", "8,8,8,8"], "images of 8x8 have no pixel left after stage 4"),
    (["--model.stem", "haar", "--prepare.image_size", "9"], "expected even ones, got 9x9"),
    (["--model.init_from", "nowhere"], "model.init_from: expected a run directory"),
    (["--train.loss.class_weights", "2"], "expected one for each class; got 1"),
    (["--train.loss.class_weights", "0,0"], "expected some image to count"),
    (["--train.optimizer.name", "keras", "--train.optimizer.optimizer", "Loin"], "mean Lion?"),
    (["--train.frozen_epochs", "51"], "train.frozen_epochs: expected at most 50"),
    (["--train.schedule.warmup_epochs", "51"], "warmup_epochs: expected at most 50"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.weights.h5").write_text("no weights")
    return tmp_path


@pytest.mark.parametrize("main", [run.main, find_lr.main], ids=["run", "find_lr"])
@pytest.mark.parametrize(
    ("arguments", "message"), IMPOSSIBLE, ids=[message for _, message in IMPOSSIBLE]
)
def test_what_cannot_train_is_refused_before_anything_is_made(
    main: Callable[[list[str]], int], arguments: list[str], message: str, folder: Path
) -> None:
    with pytest.raises(LockstepError) as caught:
        main(arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["text.weights.h5"]


def test_a_comparison_and_a_sweep_look_at_their_runs_first(folder: Path) -> None:
    (folder / "two.yaml").write_text("runs: {a: {}, b: {model: {name: resnet, depth: 9}}}")
    (folder / "space.yaml").write_text(
        "config: {model: {name: resnet, depth: 9}}\nspace: {train.batch_size: [32, 64]}"
    )
    for main, words in ((compare_main, ["--recipe", "two.yaml"]), (sweep_main, ["space.yaml"])):
        with pytest.raises(ConfigError, match="nearest are 8 and 14"):
            main(words)
    assert sorted(path.name for path in folder.iterdir()) == [
        *("space.yaml", "text.weights.h5", "two.yaml")
    ]


# ImageNet's weights


def imagenet(backbone: str = "MobileNetV2") -> PretrainedOptions:
    return PretrainedOptions(backbone=backbone)


@pytest.fixture
def offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and Keras's empty cache."""

    def refuse(*given: object, **named: object) -> None:
        raise backbones.urllib.error.URLError("no route")

    monkeypatch.setattr(backbones.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("KERAS_HOME", str(folder / "keras"))
    (folder / "keras" / "models").mkdir(parents=True)
    return folder / "keras" / "models"


def test_weights_that_cannot_be_had_are_said_before_prepare(offline: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no ImageNet weights of MobileNetV2 in .* cannot be"):
        run.main([*PRETRAINED, "--run-dir", "there"])
    assert not (folder / "there").exists()


@pytest.mark.parametrize(
    ("backbone", "size", "file"),
    [
        ("MobileNetV2", 96, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"),
        ("MobileNetV2", 100, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("MobileNet", 96, "mobilenet_1_0_224_tf_no_top.h5"),
        ("MobileNetV3Small", 96, "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
        ("ResNet50", 96, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("ResNet50V2", 96, "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("EfficientNetV2B0", 96, "efficientnetv2-b0_notop.h5"),
        (
            "InceptionResNetV2",
            96,
            "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        ),
        ("NASNetMobile", 224, "nasnet_mobile_no_top.h5"),
        ("ConvNeXtTiny", 96, "convnext_tiny_notop.h5"),
    ],
)
def test_weights_in_the_cache_need_no_network(
    backbone: str, size: int, file: str, offline: Path
) -> None:
    options = imagenet(backbone)
    whole = re.sub("_?no_?top", "", file)
    for other in (whole, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", "x.h5"):
        (offline / other).touch()
    with pytest.raises(ValueError, match=f"no ImageNet weights of {backbone}"):
        backbones.check_weights_can_be_had(options, (size, size))
    (offline / file).touch()
    backbones.check_weights_can_be_had(options, (size, size))


def test_weights_of_another_size_or_version_are_others(offline: Path) -> None:
    for file in (
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ):
        (offline / file).touch()
    for name, side in (("MobileNetV2", 224), ("MobileNet", 224), ("ResNet50", 224)):
        with pytest.raises(ValueError, match="no ImageNet weights"):
            backbones.check_weights_can_be_had(imagenet(name), (side, side))


def test_a_server_that_answers_is_enough(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Answer:
        def close(self) -> None:
            asked.append("closed")

    def answer(request: object, timeout: float) -> Answer:
        asked.append(request.full_url)
        return Answer()

    monkeypatch.setattr(backbones.urllib.request, "urlopen", answer)
    for name in backbones.names():
        asked.clear()
        backbones.check_weights_can_be_had(imagenet(name), None)
        assert asked == ["https://storage.googleapis.com/", "closed"], name


def test_a_file_of_weights_is_looked_at(folder: Path) -> None:
    with h5py.File(folder / "good.weights.h5", "w") as file:
        file.create_group("layers")
    backbones.check_weights_can_be_had(
        PretrainedOptions(weights=str(folder / "good.weights.h5")), None
    )


def test_the_networks_are_those_of_keras() -> None:
    from models.pretrained import applications

    assert set(backbones.names()) == set(applications())
    for name, value in applications().items():
        assert backbones.names()[name] == value.__module__.rpartition(".")[2]


@pytest.mark.parametrize(
    ("name", "smallest"),
    [("Xception", 71), ("InceptionV3", 75), ("ResNet50V2", 32), ("NASNetMobile", 32)],
)
def test_the_smallest_images_are_those_of_keras(name: str, smallest: int) -> None:
    backbones.check_size(name, smallest, smallest)
    with pytest.raises(ValueError, match=f"at least {smallest}x{smallest}; set --prepare.image_s"):
        backbones.check_size(name, smallest, smallest - 1)


def test_nothing_is_drawn_where_nothing_can_be_written(folder: Path) -> None:
    from pipeline import preview

    (folder / "file").touch()
    with pytest.raises(ConfigError, match="expected a directory that can be written to, got"):
        preview.main(["--output", "file/preview.png"])
    assert not (folder / "runs").exists()
