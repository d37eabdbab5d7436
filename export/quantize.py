"""int8: a smaller and, where the processor and the network allow, a faster bundle.

Static quantization by onnxruntime (QDQ, signed 8 bits, one scale for each channel of a weight),
calibrated on training images. What is quantized, how the ranges are found and which layers stay in
float is searched: the fastest choice of operators first, then the calibration with the best
validation accuracy, then, if the accuracy still drops too far, float for the layers that hurt most.
The test split takes no part; it is what the proof is made on.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from export.figures import accuracy, cross_entropy
from export.latency import Ratio, Timing, latencies, speedup, timing
from export.parity import MAX_DROP, MAX_LOSS_RISE, drops_too_far
from export.quantizer import (
    METHODS,
    OPERATORS,
    WITH_WEIGHTS,
    Images,
    needs_reduced_range,
    prepare,
    quantizable_layers,
    without_notes,
    write_quantized,
)
from export.to_onnx import write_bundle
from serve.bundle import INPUT, OUTPUT, bundle_document
from serve.rounding import share

BATCH = 32
LATENCY_BATCHES = (1, 32)
FASTER = 1.05
"""Speed-up that counts as faster; less is within what measurements on a busy machine differ by."""
SENSITIVITY_IMAGES = 32
SECONDS = 600.0
"""After so long no further way to quantize is begun."""


@dataclass(frozen=True)
class Measurement:
    """Float and int8 measured in turns, by batch size.

    Attributes:
        float32, int8: their latency.
        speedup: how many times faster int8 is.
    """

    float32: dict[int, Timing]
    int8: dict[int, Timing]
    speedup: dict[int, Ratio]

    @property
    def was_busy(self) -> bool:
        """Whether the machine had other work at the time."""
        return any(item.was_busy for item in (*self.float32.values(), *self.int8.values()))


def measured(
    float32: Mapping[int, Sequence[float]], int8: Mapping[int, Sequence[float]]
) -> Measurement:
    """From the latencies of each round in milliseconds, by batch size."""
    return Measurement(
        {batch: timing(times) for batch, times in float32.items()},
        {batch: timing(times) for batch, times in int8.items()},
        {batch: speedup(times, int8[batch]) for batch, times in float32.items()},
    )


@dataclass(frozen=True)
class Trial:
    """One way to quantize, and what came of it.

    Attributes:
        operators: key of `OPERATORS`.
        method: key of `METHODS`.
        kept_in_float: layers left out.
        speedup: float latency divided by int8 latency, by batch size; above 1 is faster.
        speedup_low: the lower end of its 95 % interval.
        accuracy, loss: on the validation split; the loss is the cross-entropy in nats.
    """

    operators: str
    method: str
    kept_in_float: tuple[str, ...]
    speedup: dict[int, float]
    speedup_low: dict[int, float]
    accuracy: float
    loss: float

    @property
    def looks_faster(self) -> bool:
        return min(self.speedup.values()) >= FASTER

    @property
    def is_faster(self) -> bool:
        """Faster by enough, and by more than chance explains."""
        return self.looks_faster and min(self.speedup_low.values()) > 1


@dataclass(frozen=True)
class Quantization:
    """The content of quantization.json.

    Attributes:
        reason: why no file was written, or "".
        chosen: the trial that was written.
        trials: all, in the order tried.
        latency_ms: medians of "float32" and "int8", by batch size, on all threads.
        latency_quartiles_ms: half of the runs took between these.
        was_busy: other work ran on the machine in the measurement that decided.
        size: bytes of both files.
        float_accuracy: of the float model on the validation split.
        calibration_images, validation_images: how many were used.
        reduced_range: weights of 7 bits, for processors whose 8-bit products can overflow.
    """

    reason: str
    float_accuracy: float
    calibration_images: int
    validation_images: int
    reduced_range: bool
    chosen: Trial | None = None
    trials: list[Trial] = field(default_factory=list)
    latency_ms: dict[str, dict[int, float]] = field(default_factory=dict)
    latency_quartiles_ms: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    was_busy: bool = False
    size: dict[str, int] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        """Whether a file was written."""
        return self.chosen is not None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def quantize(
    bundle: Path,
    output: Path,
    *,
    calibration: Images,
    validation: Images,
    labels: NDArray[np.int64],
    progress: Callable[[str], None] = lambda text: None,
) -> Quantization:
    """Search for an int8 form of `bundle` that is faster here and as accurate; write the best.

    Args:
        calibration: training images, from which the ranges of all tensors are found.
        validation: the images that choose, and their
        labels: int64 `[validation images]`.
        progress: told what is being tried.

    Returns:
        What was tried and what was kept. Nothing is written where nothing passes.
    """
    with tempfile.TemporaryDirectory() as folder:
        search = _Search(bundle, Path(folder), calibration, validation, labels, progress)
        chosen = search.run()
        result = search.result(chosen)
        if chosen is None:
            return result
        path = search.paths[chosen_key(chosen)]
        content = bundle.read_bytes()
        document = bundle_document(content)
        write_bundle(without_notes(path), dataclasses.replace(document, precision="int8"), output)
        result.size["int8"] = output.stat().st_size
        return result


def chosen_key(trial: Trial) -> tuple[str, str, tuple[str, ...]]:
    """What makes a trial different from the others."""
    return trial.operators, trial.method, trial.kept_in_float


class _Search:
    """The trials of one bundle, in a temporary folder."""

    def __init__(
        self,
        bundle: Path,
        folder: Path,
        calibration: Images,
        validation: Images,
        labels: NDArray[np.int64],
        progress: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._calibration = calibration
        self._validation = validation
        self._labels = labels
        self._progress = progress
        self._prepared = folder / "prepared.onnx"
        prepare(bundle, self._prepared)
        self._session = _session(bundle)
        self._size = bundle.stat().st_size
        self._reduced = needs_reduced_range()
        self.accuracy, self.loss = self._figures(self._session)
        self.trials: list[Trial] = []
        self.paths: dict[tuple[str, str, tuple[str, ...]], Path] = {}
        self._measured: dict[tuple[str, tuple[str, ...]], Measurement] = {}
        self._end = time.monotonic() + SECONDS
        self._layers = quantizable_layers(onnx.load(self._prepared))

    def run(self) -> Trial | None:
        """The trial to keep, or None."""
        first = [self._try(operators, "minmax") for operators in self._different_operators()]
        for candidate in sorted(first, key=lambda trial: -_mean_speedup(trial)):
            if not candidate.is_faster or self._is_late():
                continue
            others = [self._try(candidate.operators, name) for name in METHODS if name != "minmax"]
            faster = [trial for trial in (candidate, *others) if trial.is_faster]
            best = min(faster, key=lambda t: (not self._passes(t), -t.accuracy, t.loss))
            if self._passes(best):
                return best
            relieved = self._relieve(best)
            if relieved is not None:
                return relieved
        return None

    def result(self, chosen: Trial | None) -> Quantization:
        decisive = chosen or max(self.trials, key=_mean_speedup, default=None)
        found = self._measurement_of(decisive) if decisive else None
        timings = {"float32": found.float32, "int8": found.int8} if found else {}
        return Quantization(
            reason="" if chosen else self._reason(),
            float_accuracy=self.accuracy,
            calibration_images=len(self._calibration.rows),
            validation_images=len(self._validation.rows),
            reduced_range=self._reduced,
            chosen=chosen,
            trials=self.trials,
            latency_ms=_by_batch(timings, lambda item: item.median) if chosen else {},
            latency_quartiles_ms=(
                _by_batch(timings, lambda item: [item.low, item.high]) if chosen else {}
            ),
            was_busy=found is not None and found.was_busy,
            size={"float32": self._size},
        )

    def _reason(self) -> str:
        if not self.trials:
            return "the graph has no operator that is worth quantizing"
        late = f", and the search ended after {SECONDS:.0f} s" if self._is_late() else ""
        fastest = max(self.trials, key=_mean_speedup)
        speedups = " and ".join(
            f"{ratio:.2f} x at batch {batch}" for batch, ratio in fastest.speedup.items()
        )
        if not any(trial.is_faster for trial in self.trials):
            if not fastest.looks_faster:
                return f"not faster on this machine: at best {speedups} ({fastest.operators}){late}"
            ends = " and ".join(f"{ratio:.2f} x" for ratio in fastest.speedup_low.values())
            return (
                f"not reliably faster on this machine: {speedups} ({fastest.operators}), but it "
                f"may be only {ends} (lower ends of 95 % intervals){late}"
            )
        count = len(self._validation.rows)
        best = max(
            (trial for trial in self.trials if trial.is_faster), key=lambda trial: trial.accuracy
        )
        return (
            f"less accurate wherever it is faster: accuracy on {count:,} validation images from "
            f"{share(self.accuracy, count)} to {share(best.accuracy, count)} at best, "
            f"cross-entropy from {self.loss:.3f} to {best.loss:.3f} nats; {100 * MAX_DROP:.1f} "
            f"points and {MAX_LOSS_RISE} nats are allowed{late}"
        )

    def _different_operators(self) -> list[str]:
        """The choices of operators that select different layers of this graph."""
        selected: dict[tuple[str, ...], str] = {}
        for name, operators in OPERATORS.items():
            layers = tuple(layer for layer, operator in self._layers if operator in operators)
            if layers:
                selected.setdefault(layers, name)
        return list(selected.values())

    def _relieve(self, trial: Trial) -> Trial | None:
        """Leave more and more of the most sensitive layers in float, while it stays faster."""
        ranked = self._by_sensitivity(trial)
        count = 1
        while count <= len(ranked) // 2 and not self._is_late():
            relieved = self._try(trial.operators, trial.method, tuple(ranked[:count]))
            if not relieved.is_faster:
                return None
            if self._passes(relieved):
                return relieved
            count *= 2
        return None

    def _by_sensitivity(self, trial: Trial) -> list[str]:
        """Layers, the one whose quantization alone changes the answers most first."""
        quantized = {*WITH_WEIGHTS} & {*OPERATORS[trial.operators]}
        weighty = [name for name, operator in self._layers if operator in quantized]
        sample = Images(self._calibration.images, self._calibration.rows[:SENSITIVITY_IMAGES])
        expected = _answers(self._session, sample)
        harm = {}
        for name in weighty:
            if self._is_late():
                break
            self._progress(f"sensitivity of {name}")
            path = self._folder / "single.onnx"
            write_quantized(
                self._prepared,
                path,
                operators=trial.operators,
                method="minmax",
                images=sample,
                layers=[name],
                reduced_range=self._reduced,
            )
            harm[name] = float(np.abs(_answers(_session(path), sample) - expected).mean())
        return sorted(harm, key=lambda name: -harm[name])

    def _is_late(self) -> bool:
        return time.monotonic() > self._end

    def _passes(self, trial: Trial) -> bool:
        """The limits of the proof, on the validation split."""
        accurate = not drops_too_far(trial.accuracy - self.accuracy, MAX_DROP)
        return trial.is_faster and accurate and trial.loss - self.loss <= MAX_LOSS_RISE

    def _try(self, operators: str, method: str, kept_in_float: tuple[str, ...] = ()) -> Trial:
        self._progress(f"{operators}, {method}")
        path = self._folder / f"{len(self.trials)}.onnx"
        write_quantized(
            self._prepared,
            path,
            operators=operators,
            method=method,
            images=self._calibration,
            layers=[name for name, _ in self._layers],
            kept_in_float=kept_in_float,
            reduced_range=self._reduced,
        )
        session = _session(path)
        figures = self._figures(session)
        # Which numbers the scales are changes no speed: one measurement for each set of layers.
        layers = (operators, kept_in_float)
        if layers not in self._measured:
            self._measured[layers] = self._measure(session)
        ratios = self._measured[layers].speedup
        trial = Trial(
            operators=operators,
            method=method,
            kept_in_float=kept_in_float,
            speedup={batch: ratio.median for batch, ratio in ratios.items()},
            speedup_low={batch: ratio.low for batch, ratio in ratios.items()},
            accuracy=figures[0],
            loss=figures[1],
        )
        self.trials.append(trial)
        self.paths[chosen_key(trial)] = path
        return trial

    def _figures(self, session: onnxruntime.InferenceSession) -> tuple[float, float]:
        """Accuracy and cross-entropy on the validation images."""
        answers = _answers(session, self._validation)
        return accuracy(self._labels, answers), cross_entropy(self._labels, answers)

    def _measurement_of(self, trial: Trial) -> Measurement:
        return self._measured[trial.operators, trial.kept_in_float]

    def _measure(self, session: onnxruntime.InferenceSession) -> Measurement:
        """Latency of both, and their ratio."""
        times: dict[str, dict[int, list[float]]] = {"float32": {}, "int8": {}}
        for batch in LATENCY_BATCHES:
            images = self._calibration.read(np.resize(self._calibration.rows, batch))
            found = latencies({"float32": self._session, "int8": session}, images)
            for name, milliseconds in found.items():
                times[name][batch] = milliseconds
        return measured(times["float32"], times["int8"])


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _answers(session: onnxruntime.InferenceSession, images: Images) -> NDArray[np.float32]:
    return np.concatenate(
        [session.run([OUTPUT], {INPUT: images.read(rows)})[0] for rows in images.row_batches(BATCH)]
    )


def _by_batch(
    timings: dict[str, dict[int, Timing]], figure: Callable[[Timing], Any]
) -> dict[str, dict[int, Any]]:
    return {
        name: {batch: figure(item) for batch, item in by_batch.items()}
        for name, by_batch in timings.items()
    }


def _mean_speedup(trial: Trial) -> float:
    return float(np.prod(list(trial.speedup.values())) ** (1 / len(trial.speedup)))
