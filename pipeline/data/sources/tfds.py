"""Any image classification set of tensorflow-datasets: `tfds:NAME`, `tfds:NAME/CONFIG:VERSION`.

Images are taken as the encoded bytes that the set stores, so that Lockstep's own reader decodes
them. Prepared sets lie where tensorflow-datasets keeps them (`TFDS_DATA_DIR`).
"""

import logging
import sys
from collections.abc import Iterator
from typing import Any

from export.prepared_data import Split
from export.quiet_tensorflow import import_tensorflow
from pipeline.data.sources import Example, Source, SourceError

SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def identity(place: str) -> str:
    return place


def open_source(place: str) -> Source:
    import_tensorflow()
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SourceError(f"tfds:{place}: needs tensorflow-datasets: {error}") from None

    for noisy in ("absl", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder = tfds.builder(place, try_gcs=False)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except tfds.core.registered.DatasetNotFoundError:
        raise SourceError(f"tfds:{place}: tensorflow-datasets knows no such set") from None
    except Exception as error:  # every set's own download code may raise anything
        raise SourceError(
            f"tfds:{place}: could not be downloaded and prepared: {type(error).__name__}: {error}"
        ) from error
    image_key, label_key = _features(place, builder.info.features, tfds.features)
    image_shape = builder.info.features[image_key].shape

    def rows(name: str) -> Iterator[dict[str, Any]]:
        dataset = builder.as_dataset(
            split=name,
            decoders={image_key: tfds.decode.SkipDecoding()},
            shuffle_files=False,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        yield from dataset.as_numpy_iterator()

    splits = {
        name: SPLITS[name]
        for name in builder.info.splits
        if name in SPLITS and next(rows(name))[label_key] >= 0  # -1: an unlabelled test split
    }
    if "train" not in splits:
        raise SourceError(f"tfds:{place}: has no split 'train', only {list(builder.info.splits)}")

    def examples() -> Iterator[Example]:
        for name, split in splits.items():
            for index, row in enumerate(rows(name)):
                yield Example(f"{name}/{index:06}", int(row[label_key]), row[image_key], split)

    height, width, channels = image_shape
    return Source(
        class_names=tuple(builder.info.features[label_key].names),
        count=sum(builder.info.splits[name].num_examples for name in splits),
        examples=examples,
        image_size=(height, width) if height and width else None,
        channels=1 if channels == 1 else 3,
        ignored=tuple(f"split {name}" for name in builder.info.splits if name not in splits),
    )


def _features(place: str, features: Any, kinds: Any) -> tuple[str, str]:
    """The keys of the image and of the label."""
    images = [key for key, feature in features.items() if isinstance(feature, kinds.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, kinds.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise SourceError(
            f"tfds:{place}: expected an image classification set with one image and one label, "
            f"got the images {images} and the labels {labels}"
        )
    return images[0], labels[0]
