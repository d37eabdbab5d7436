"""scikit-learn's scanned digits: 1,797 grey images of 8x8 pixels, inside its wheel.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test set).
"""

from collections.abc import Iterator

import numpy as np

from pipeline.data.sources import Example, Source


def identity(place: str) -> str:
    return "scikit-learn digits"


def open_source(place: str) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The scans count ink from 0 to 16; 255/16 is no integer, so round to the nearest grey.
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels = digits.target

    def examples() -> Iterator[Example]:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield Example(f"{index:04}", int(label), image)

    return Source(tuple("0123456789"), len(images), examples, (8, 8), 1)
