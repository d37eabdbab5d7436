"""Real images, made on the spot, for the tests of the data side."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.run_directory import RunDirectory
from pipeline.data.prepare import prepare
from pipeline.recipe import load_recipe, resolve

MakePhotos = Callable[..., Path]


def save_noise(path: Path, seed: int, size: tuple[int, int] = (10, 8)) -> None:
    """An RGB image of `size` (width, height) whose pixels depend on `seed` alone."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def make_photos(tmp_path: Path) -> MakePhotos:
    """Write `{"cat": 6, "train/dog": 4}`: so many different PNG files into each folder."""

    def make(counts: Mapping[str, int], root: Path | None = None) -> Path:
        root = root or tmp_path / "photos"
        root.mkdir(parents=True, exist_ok=True)
        for number, (folder, count) in enumerate(counts.items()):
            for index in range(count):
                save_noise(root / folder / f"{index:02}.png", seed=1000 * number + index)
        return root

    return make


def tfds_png(index: int) -> bytes:
    """The PNG file of example `index` of the tfds set below: `4 + index` rows, 5 columns."""
    stream = io.BytesIO()
    Image.fromarray(np.full((4 + index, 5, 3), index, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="session")
def tfds_sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two sets that tensorflow-datasets knows: `tiny_shapes`, and `tiny_unlabelled`."""
    import tensorflow_datasets as tfds

    class TinyShapes(tfds.core.GeneratorBasedBuilder):
        """Three classes; 12 images to train on and 6 to test, and 3 in a split of another name."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["round", "square", "long"]),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {
                "train": self._generate_examples(range(12)),
                "test": self._generate_examples(range(12, 18)),
                "extra": self._generate_examples(range(18, 21)),
            }

        def _generate_examples(self, indices):
            for index in indices:
                yield index, {"image": io.BytesIO(tfds_png(index)), "label": index % 3}

    class TinyUnlabelled(TinyShapes):
        """Images without a class."""

        def _info(self):
            features = {"image": tfds.features.Image(shape=(None, None, 3))}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, indices):
            for index in indices:
                yield index, {"image": io.BytesIO(tfds_png(index))}

    directory = tmp_path_factory.mktemp("tensorflow_datasets")
    with pytest.MonkeyPatch.context() as patch:
        # What TFDS_DATA_DIR sets, but that is read once, when the library is imported.
        patch.setattr(tfds.core.constants, "DATA_DIR", str(directory))
        yield directory


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as the stage `prepare` leaves them; treat them as read-only."""
    path = tmp_path_factory.mktemp("prepared")
    prepare(resolve(load_recipe("digits"), {}), RunDirectory(path))
    return path / "data"
