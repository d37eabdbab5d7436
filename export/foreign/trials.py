"""The usual ways to make numbers of a photo, tried on some of the images: which is the model's?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.foreign.head import Head, logits_of
from export.foreign.images import ReadImages
from export.foreign.model import ForeignKerasModel, Scaling
from export.foreign.outputs import OutputsError, decide
from export.foreign.truth import Truth
from export.intervals import paired_interval
from export.prepared_data import evenly_spaced
from export.progress import counted
from export.scoring import binary_cross_entropy
from serve.description import Description
from serve.images import read_image
from serve.multi_label import has_labels
from serve.rounding import rounded

SAMPLE = 200
"""So many images at most are tried in every way."""


@dataclass(frozen=True)
class InputRange:
    """A usual form of input.

    Attributes:
        name: what it is called.
        option: what to type for it.
        mean, std: per channel, in units of pixel / 255.
        is_bgr: blue comes first; no option says that.
    """

    name: str
    option: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_bgr: bool = False

    @property
    def advice(self) -> str:
        """What to do to use it."""
        if self.option:
            return f"say {self.option}"
        return (
            "no option says so: put keras.applications.resnet50.preprocess_input at the beginning "
            "of the model and save it again"
        )


RANGES = (
    InputRange("0 to 255", "--input-range 0,255", (0.0,), (1 / 255,)),
    InputRange("0 to 1", "--input-range 0,1", (0.0,), (1.0,)),
    InputRange("-1 to 1", "--input-range=-1,1", (0.5,), (0.5,)),
)
IMAGENET = InputRange(
    "ImageNet's mean and deviation",
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)
CAFFE = InputRange(
    "BGR less ImageNet's mean (caffe)",
    "",
    (123.68 / 255, 116.779 / 255, 103.939 / 255),
    (1 / 255,) * 3,
    is_bgr=True,
)


@dataclass(frozen=True)
class Trial:
    """One way of input, tried.

    Attributes:
        form: the range of the numbers.
        resize: how another shape was fitted, or "" where every way gives the same pixels.
        answered: int64 `[images]`, the answers as positions among the labels.
        right: bool `[labelled images]`, whether the answer was the label; empty without labels.
        fit: mean log-probability of the right label, which decides between equal accuracies.
        confidence: mean probability of the answer.
    """

    form: InputRange
    resize: str
    answered: NDArray[np.int64]
    right: NDArray[np.bool_]
    fit: float
    confidence: float

    @property
    def accuracy(self) -> float:
        """Share of the labelled images that were answered rightly."""
        return float(self.right.mean())

    @property
    def answers(self) -> int:
        """How many different labels were answered."""
        return len(np.unique(self.answered))

    @property
    def options(self) -> str:
        """What to type for it."""
        resize = f" --resize {self.resize}" if self.resize else ""
        return (self.form.option or f"{self.form.name} ({self.form.advice})") + resize


def usual_ranges(channels: int) -> tuple[InputRange, ...]:
    """The forms of input that models of so many channels usually take."""
    return (*RANGES, IMAGENET, CAFFE) if channels == 3 else RANGES


class Sample:
    """Some of the images, read in several ways.

    Args:
        resizes: the ways to fit another shape.
        truth: of a multi-label model, which image has which labels, where that is known.
        thresholds: of its labels.

    Attributes:
        labels: int64 `[images]`, or with `truth` bool `[images, labels]`; None where none is known.
        pixels: uint8 `[images, height, width, channels]` by way; by "" alone if all are equal.
    """

    def __init__(
        self,
        model: ForeignKerasModel,
        read: ReadImages,
        resizes: Sequence[str],
        truth: Truth | None = None,
        thresholds: Sequence[float] = (),
    ) -> None:
        known = read.labelled if truth is None else truth.known
        chosen = evenly_spaced(known if len(known) else np.arange(len(read.paths)), SAMPLE)
        self.labels: NDArray[Any] | None = read.numbers[chosen] if len(known) else None
        if truth is not None:
            self.labels = truth.values[np.searchsorted(known, chosen)]
        self._thresholds = thresholds
        self._model = model
        self._size = len(chosen)
        self.pixels = {model.spec.resize: read.pixels[chosen]}
        for resize in resizes:
            if resize != model.spec.resize:
                self.pixels[resize] = self._read([read.paths[number] for number in chosen], resize)
        first = next(iter(self.pixels.values()))
        if len(resizes) > 1 and all(np.array_equal(first, one) for one in self.pixels.values()):
            self.pixels = {"": first}  # they all have the model's shape

    def __len__(self) -> int:
        return self._size

    @property
    def commonest(self) -> NDArray[np.bool_]:
        """Which images have the commonest label, or the commonest set of labels."""
        assert self.labels is not None
        _, places = np.unique(self.labels, axis=0, return_inverse=True)
        same: NDArray[np.bool_] = places.ravel() == np.bincount(places.ravel()).argmax()
        return same

    def _read(self, files: Sequence[Path], resize: str) -> NDArray[np.uint8]:
        spec = replace(self._model.spec, resize=resize)
        text = f"read {len(files)} images with --resize {resize}"
        return np.stack([read_image(path, spec) for path in counted(files, text)])

    def trials(
        self,
        forms: Sequence[InputRange],
        kind: str,
        stated: str,
        resizes: Sequence[str] | None = None,
    ) -> list[Trial]:
        """Every form of input with every way to fit another shape, or with some.

        Args:
            kind, stated: as in `outputs.decide`.
        """
        ways = [(form, resize) for form in forms for resize in resizes or self.pixels]
        text = f"try {len(ways)} ways of input on {len(self)} images"
        return [self._trial(form, resize, kind, stated) for form, resize in counted(ways, text)]

    def _trial(self, form: InputRange, resize: str, kind: str, stated: str) -> Trial:
        answers = self._answers(form, self.pixels[resize])
        head = _head(answers, kind, stated)
        probabilities = head.in_keras(np.nan_to_num(answers))
        answered = probabilities.argmax(axis=1)
        right, fit = np.zeros(0, bool), 0.0
        if self.labels is not None and self.labels.ndim == 2:
            right = (has_labels(probabilities, self._thresholds) == self.labels).all(axis=1)
            fit = -binary_cross_entropy(self.labels, probabilities)
        elif self.labels is not None:
            right = answered == self.labels
            of_label = probabilities[np.arange(len(answered)), self.labels]
            fit = float(np.log(np.clip(of_label, 1e-12, 1)).mean())
        if len(right):
            right &= np.isfinite(answers).all(axis=1)
        confidence = float(probabilities.max(axis=1).mean())
        return Trial(form, resize, answered, right, fit, confidence)

    def _answers(self, form: InputRange, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        scaling = scaling_of(form, self._model.spec.channels)
        if form.is_bgr:
            pixels, scaling = pixels[..., ::-1], (scaling[0][::-1], scaling[1][::-1])
        return self._model.answers(pixels, scaling)


def scaling_of(form: InputRange, channels: int) -> Scaling:
    """Scale and offset of a usual form of input."""
    description = Description(("a", "b"), mean=form.mean, std=form.std)
    return description.scale_and_offset(channels)


def _head(answers: NDArray[np.float32], kind: str, stated: str) -> Head:
    """What belongs behind the model, guessed where it cannot be told: only for a table."""
    try:
        return decide(answers, kind, stated).head
    except OutputsError:
        finite = np.nan_to_num(answers)
        within = bool(finite.min() >= 0 and finite.max() <= 1)
        outputs = answers.shape[1]
        return Head("sigmoid", is_pair=outputs == 1) if within else logits_of(outputs)


def best_of(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest accuracy; of several, the one with the best fit."""
    return max(trials, key=lambda trial: (trial.accuracy, trial.fit))


def is_better(one: Trial, other: Trial) -> bool:
    """Whether one is more accurate beyond doubt: the 95 % interval of the difference is above 0."""
    return surely_more(one.right, other.right)


def surely_more(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    """Whether more of the same images are right in one: the 95 % interval is above 0."""
    counts = [
        int(((one == first) & (other == second)).sum())
        for first, second in ((True, True), (True, False), (False, True), (False, False))
    ]
    return paired_interval(*counts)[0] > 0


def table(trials: Sequence[Trial]) -> list[str]:
    """The trials as a small table, a row for each form of input; the best is marked."""
    measured = bool(len(trials[0].right))
    resizes = list(dict.fromkeys(trial.resize for trial in trials))
    best = best_of(trials) if measured else None
    cells: dict[str, list[str]] = {}
    for trial in trials:
        cells.setdefault(trial.form.name, []).append(_cell(trial, best))
    head = "".join(f"{resize or 'any resize':>16}" for resize in resizes)
    lines = [f"{'input':<34}{head}"]
    lines += [f"{name:<34}" + "".join(f"{cell:>16}" for cell in row) for name, row in cells.items()]
    if measured:
        lines.append("* best   ~ not told apart from it by so few images")
    return lines


def _cell(trial: Trial, best: Trial | None) -> str:
    if best is None:
        return f"{trial.confidence:.2f}, {trial.answers}"
    mark = "*" if trial is best else " " if is_better(best, trial) else "~"
    return f"{rounded(trial.accuracy, len(trial.right))}{mark}"
