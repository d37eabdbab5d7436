"""Pictures of three colours, and the command without its proof."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from export.foreign.adoption import Adopted, Request, adopt_and_measure
from serve.description import Description
from tests.export.foreign.colours import LABELS

Adopt = Callable[..., Adopted]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures of three colours, 24x30, in folders named after the labels."""
    folder = tmp_path_factory.mktemp("elsewhere") / "photos"
    generator = np.random.default_rng(0)
    for channel, name in ((2, "blue"), (1, "green"), (0, "red")):
        (folder / name).mkdir(parents=True)
        for number in range(9):
            noise = generator.integers(0, 200, (24, 30, 3), dtype=np.uint8)
            noise[..., channel] |= 128
            Image.fromarray(noise).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def adopt(photos: Path, tmp_path: Path) -> Adopt:
    """Save a model and adopt it, as the command does, without the proof."""

    def run(
        model: keras.Model, *, labels: tuple[str, ...] = LABELS, images: Path = photos,
        custom: Path | None = None, resize_said: bool = False, **given: Any,
    ) -> Adopted:  # fmt: skip
        path = tmp_path / "model.keras"
        model.save(path)
        description = Description(labels, **given)
        return adopt_and_measure(
            Request(path, description, images, custom=custom, resize_said=resize_said)
        )

    return run
