"""From a model's file and a folder of images to a reference, a measurement and what looks wrong.

Nothing is exported here: what cannot be told is asked before.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.foreign.first_layers import first_layers
from export.foreign.images import ReadImages, image_files, read_images
from export.foreign.label_names import misplaced
from export.foreign.label_order import other_order, other_order_of_several
from export.foreign.model import ForeignKerasModel, Scaling, adopt
from export.foreign.outputs import Decision, decide
from export.foreign.tail import kind_of_answers
from export.foreign.trials import (
    RANGES,
    InputRange,
    Sample,
    Trial,
    best_of,
    is_better,
    surely_more,
    table,
    usual_ranges,
)
from export.foreign.truth import Truth, read_truth
from export.intervals import wilson_interval
from export.multi_label import MultiLabelFigures, multi_label_figures
from export.multi_label_verdict import judge_multi_label
from export.prepared_data import MAX_PROOF_EXAMPLES
from export.progress import step
from export.verdict import judge
from serve.bundle import Finding
from serve.command import LockstepError
from serve.description import Description
from serve.image_spec import RESIZES
from serve.multi_label import MULTI_LABEL
from serve.rounding import rounded, share

FAR_BETTER = 0.05
"""Another way of input is spoken of only if it gains so much accuracy, beyond doubt."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        model: the file of the model.
        given: what the person says of it; without a normalization, the model must say it itself.
        images: folder of the images to prove and measure it on.
        max_examples: images at most.
        custom: a Python file with classes of the model's own.
        resize_said: whether `given.resize` was said, or is the default.
        truth: of a multi-label model, a table of which image has which labels.
    """

    model: Path
    given: Description
    images: Path
    max_examples: int = MAX_PROOF_EXAMPLES
    custom: Path | None = None
    resize_said: bool = False
    truth: Path | None = None


@dataclass(frozen=True)
class Adopted:
    """A model with all that its bundle must know, measured.

    Attributes:
        given: with the normalization that is used.
        decision: what belongs behind the model, and why.
        reference: float32 `[images, labels]`, Keras's own probabilities.
        range_reason: who says which numbers the model takes for a pixel.
        accuracy: on the images with a known label; None if there are none. Multi-label: share of
            the images with a known truth that get exactly their labels.
        verdict: whether the model is any good.
        warnings: what looks wrong, with what to type instead.
        tables: trials that were made, as text.
        truth: of a multi-label model, which image has which labels; None if that is not known.
        figures: of a multi-label model with a known truth.
    """

    request: Request
    given: Description
    model: ForeignKerasModel
    scaling: Scaling
    read: ReadImages
    decision: Decision
    reference: NDArray[np.float32]
    range_reason: str
    accuracy: float | None
    verdict: tuple[Finding, ...]
    warnings: tuple[str, ...]
    tables: tuple[str, ...] = ()
    truth: Truth | None = None
    figures: MultiLabelFigures | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of each label of a multi-label model; else empty."""
        is_multi_label = self.decision.head.task == MULTI_LABEL
        return self.given.label_thresholds() if is_multi_label else ()

    def accuracy_told(self) -> str:
        """The accuracy with its count and interval, or why there is none."""
        names = self.given.class_names
        known, what = self.read.labelled, "images with a known label"
        if self.decision.head.task == MULTI_LABEL:
            if self.truth is None:
                return "not measured: say which image has which labels with --truth FILE.csv"
            known, what = self.truth.known, "images get exactly the labels of --truth"
        if self.accuracy is None:
            return f"not measured: {self.read.why_not_measured(names)}"
        correct = round(self.accuracy * len(known))
        low, high = (rounded(end, len(known)) for end in wilson_interval(correct, len(known)))
        part = "" if len(known) == len(self.read.paths) else f" of {len(self.read.paths):,} given"
        return (
            f"{rounded(self.accuracy, len(known))} ({correct:,} of {len(known):,} {what}{part}; "
            f"95 % interval {low} to {high})"
        )


class RangeError(LockstepError):
    """Nobody says which numbers the model takes for a pixel."""


def adopt_and_measure(request: Request) -> Adopted:
    """Load a model, find out what it takes and gives, and measure it on the images.

    Raises:
        LockstepError: it is no image classifier, or it leaves open what only a person knows.
    """
    step(f"load {request.model}")
    model = adopt(request.model, request.given, request.custom)
    traced = model.traced()
    kind, layers = kind_of_answers(traced), first_layers(traced)
    given, range_reason = request.given, "as said"
    read = read_images(request.images, model.spec, given.class_names, request.max_examples)
    truth = _truth(request, read)
    warnings = _order_of_lines(given)
    if model.takes_pixels:
        given, range_reason = _pixels(given), "the model's input is of an integer type"
    elif given.mean is None and layers is not None and layers.takes_pixels:
        range_reason = (
            f"the model's first layers subtract {layers.centre:.4g} and divide by "
            f"{layers.scale:.4g}"
        )
        given = _pixels(given)
    elif given.mean is None:
        raise _ask_for_range(request, model, read, kind, truth)
    elif layers is not None and layers.takes_pixels and not _says_pixels(given):
        warnings.append(
            f"the model's first layers subtract {layers.centre:.4g} and divide by "
            f"{layers.scale:.4g}, as for pixels from 0 to 255, and --input-range or --mean and "
            "--std scale before them: scaled twice? leave the option out"
        )
    scaling = given.scale_and_offset(model.spec.channels)
    answers = model.answers(
        read.pixels, scaling, show=f"Keras predict on {len(read.paths):,} images"
    )
    decision = decide(answers, kind, given.outputs)
    if given.thresholds and decision.head.task == "single-label":
        raise LockstepError("--threshold: the model is single-label: its answer is one label")
    if truth is not None and decision.head.task != MULTI_LABEL:
        raise LockstepError(
            "--truth: the model is single-label: put the images in folders named after the labels, "
            "or say --outputs sigmoid if each label has a probability of its own"
        )
    reference = decision.head.in_keras(answers)
    adopted = Adopted(
        request=request, given=given, model=model, scaling=scaling, read=read, decision=decision,
        reference=reference, range_reason=range_reason, accuracy=None, verdict=(),
        warnings=(*warnings, *decision.warnings), truth=truth,
    )  # fmt: skip
    return _measured(adopted, kind)


def _measured(adopted: Adopted, kind: str) -> Adopted:
    """With accuracy, verdict, and the trials that show a likelier way of input."""
    if adopted.decision.head.task == MULTI_LABEL:
        return _measured_by_label(adopted, kind)
    known, names = adopted.read.labelled, adopted.given.class_names
    if not len(known):
        return replace(adopted, verdict=judge(None, adopted.reference, names))
    labels, probabilities = adopted.read.numbers[known], adopted.reference[known]
    answers = probabilities.argmax(axis=1)
    warnings, tables = list(adopted.warnings), []
    order = other_order(labels, answers, names)
    if order:
        warnings.append(order)
    else:
        found, shown = _likelier_input(adopted, kind)
        warnings += found
        tables += shown
    return replace(
        adopted,
        accuracy=float((answers == labels).mean()),
        verdict=judge(labels, probabilities, names),
        warnings=tuple(warnings),
        tables=tuple(tables),
    )


def _truth(request: Request, read: ReadImages) -> Truth | None:
    if request.truth is None:
        return None
    folder, names = request.images, request.given.class_names
    return read_truth(request.truth, folder, image_files(folder), read.paths, names)


def _measured_by_label(adopted: Adopted, kind: str) -> Adopted:
    """The same of a multi-label model."""
    names, truth, thresholds = adopted.given.class_names, adopted.truth, adopted.thresholds
    if truth is None:
        verdict = judge_multi_label(None, adopted.reference, names, thresholds)
        return replace(adopted, verdict=verdict)
    probabilities = adopted.reference[truth.known]
    figures = multi_label_figures(truth.values, probabilities, names, thresholds)
    order = other_order_of_several(truth.values, probabilities, names)
    warnings, tables = ([order], []) if order else _likelier_input(adopted, kind)
    return replace(
        adopted,
        accuracy=figures.accuracy,
        figures=figures,
        verdict=judge_multi_label(truth.values, probabilities, names, thresholds),
        warnings=(*adopted.warnings, *warnings),
        tables=tuple(tables),
    )


def _likelier_input(adopted: Adopted, kind: str) -> tuple[list[str], list[str]]:
    """Warnings and tables of other ways to fit another shape and of other ranges, on a sample."""
    request, model, given = adopted.request, adopted.model, adopted.given
    stated = adopted.decision.head.outputs
    mean, std = given.normalization(model.spec.channels)
    resizes = (given.resize,) if request.resize_said else RESIZES
    sample = Sample(model, adopted.read, resizes, adopted.truth, adopted.thresholds)
    trials = sample.trials([InputRange("as given", "", mean, std)], kind, stated)
    here = next(trial for trial in trials if trial.resize in ("", given.resize))
    warnings, tables = [], []
    if len(trials) > 1:
        title = f"accuracy on {len(sample)} images, by --resize"
        tables.append("\n".join([title, *table(trials)]))
        best = best_of(trials)
        if _is_far_better(best, here):
            warnings.append(
                f"--resize {best.resize} gives {_shown(best)}, --resize {here.resize} "
                f"{_shown(here)}: the model was likely trained so; say --resize {best.resize}"
            )
    if not model.takes_pixels:
        others = [form for form in usual_ranges(model.spec.channels) if not _same(form, given)]
        best = best_of(sample.trials(others, kind, stated, [here.resize]))
        if _is_far_better(best, here):
            warnings.append(
                f"pixels as {best.form.name} give {_shown(best)}, as now {_shown(here)}: "
                f"{best.form.advice}"
            )
    return warnings, tables


def _is_far_better(one: Trial, other: Trial) -> bool:
    return one.accuracy - other.accuracy >= FAR_BETTER and is_better(one, other)


def _shown(trial: Trial) -> str:
    return f"accuracy {share(trial.accuracy, len(trial.right))} on {len(trial.right)} images"


def _ask_for_range(
    request: Request, model: ForeignKerasModel, read: ReadImages, kind: str, truth: Truth | None
) -> RangeError:
    """The error that asks, after a table of the usual ways was printed."""
    names = request.given.class_names
    resizes = (request.given.resize,) if request.resize_said else RESIZES
    sample = Sample(model, read, resizes, truth, request.given.label_thresholds())
    trials = sample.trials(usual_ranges(model.spec.channels), kind, request.given.outputs)
    asked = (
        f"{request.model}: neither the model nor you say which numbers stand for black and white: "
        "say --input-range LOW,HIGH, or --mean and --std"
    )
    if sample.labels is None:
        print(f"accuracy   not measured: {read.why_not_measured(names)}")
        print(f"mean confidence, and number of different answers on {len(sample)} images:")
        print("\n".join(table(trials)))
        print("these cannot tell which is right: put images in folders named after the labels")
        return RangeError(f"{asked}; without labelled images the table above cannot tell which")
    print(f"accuracy on {len(sample)} images with a known label, by input and --resize")
    print("\n".join([*table(trials), *(truth.told if truth else read.told(names))]))
    best = best_of(trials)
    if not surely_more(best.right, sample.commonest):
        single = [] if truth else trials
        ordered = [other_order(sample.labels, trial.answered, names) for trial in single]
        pairs = zip(single, ordered, strict=True)
        causes = [f"with {trial.options} {order}" for trial, order in pairs if order]
        found = causes[0] if causes else "is --labels in the order of the training?"
        print(f"none is better than always answering the commonest class; {found}")
        return RangeError(f"{asked}; none of the usual ones is better than chance here; {found}")
    told = f"best on {len(sample)} images: {best.options}"
    unclear = {one.form.name for one in trials if not is_better(best, one)} - {best.form.name}
    if unclear:
        told += (
            f" (too few to tell it from {', '.join(sorted(unclear))}: give more images, or look "
            "up how the model was trained)"
        )
    print(told)
    return RangeError(f"{asked}; {told}")


def _pixels(given: Description) -> Description:
    """With pixels as they are, from 0 to 255.

    Raises:
        LockstepError: something else was said.
    """
    if given.mean is not None and not _says_pixels(given):
        raise LockstepError(
            "the model takes whole numbers, the pixels from 0 to 255: leave out --input-range, "
            "--mean and --std"
        )
    return replace(given, mean=RANGES[0].mean, std=RANGES[0].std)


def _says_pixels(given: Description) -> bool:
    return _same(RANGES[0], given)


def _same(form: InputRange, given: Description) -> bool:
    """Whether a usual form of input is the one that was given."""
    assert given.mean is not None and given.std is not None
    pairs = ((form.mean, given.mean), (form.std, given.std))
    same = all(np.allclose(np.broadcast_to(a, 3), _three(b), atol=1e-4) for a, b in pairs)
    return same and not form.is_bgr


def _three(values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.broadcast_to(values, 3) if len(values) in (1, 3) else np.full(3, np.nan)


def _order_of_lines(given: Description) -> list[str]:
    wrong = misplaced(given.class_names)
    if wrong is None:
        return []
    line, index = wrong
    return [
        f"--labels: line {line} says {index}, and lines name the outputs in order: sort the file "
        "by these numbers"
    ]
