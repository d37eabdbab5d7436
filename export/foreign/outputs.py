"""What a model gives: logits, probabilities that sum to 1, or a sigmoid's for each label.

The end of the graph and the answers on real images must both say it. Where they leave it open, the
person is asked: a softmax behind a sigmoid changes every probability and looks like an answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.foreign.head import Head, logits_of
from export.foreign.tail import LOGARITHM, RAW, SIGMOID, SOFTMAX
from serve.command import LockstepError
from serve.probabilities import are_shares, sums_to_one

TINY = 1e-5
"""A probability so near to 0 or 1 is a saturated one."""

CHOICES = (
    "--outputs sigmoid (each label has a probability of its own), --outputs logits (a softmax "
    "belongs behind) or --outputs probabilities (one label of several, summing to 1)"
)
CHOICES_OF_ONE = (
    "--outputs sigmoid (it is the probability of the second label) or --outputs logits (a sigmoid "
    "belongs behind)"
)


class OutputsError(LockstepError):
    """What a model gives is not what was said, or nobody said it."""


@dataclass(frozen=True)
class Decision:
    """What belongs behind a model, and why.

    Attributes:
        head: turns answers into probabilities.
        reason: one phrase for the terminal.
        warnings: what looks wrong although it was said.
    """

    head: Head
    reason: str
    warnings: tuple[str, ...] = ()


def decide(answers: NDArray[np.float32], kind: str, stated: str) -> Decision:
    """What a model's answers are.

    Args:
        answers: float32 `[images, outputs]`, as Keras gives them for real images.
        kind: what makes them; see `tail.kind_of_answers`.
        stated: what the person said: "logits", "probabilities", "sigmoid" or "auto".

    Raises:
        OutputsError: NaN or infinity, answers that contradict what was said, or nothing was said
            and it cannot be told.
    """
    if not np.isfinite(answers).all():
        bad = int((~np.isfinite(answers).all(axis=1)).sum())
        raise OutputsError(
            f"the model gives NaN or infinite numbers for {bad} of {len(answers)} images; "
            "check --input-range and the model's weights"
        )
    if answers.shape[1] == 1:
        return _of_one(answers, kind, stated)
    return _stated(answers, kind, stated) if stated != "auto" else _found(answers, kind)


def _stated(answers: NDArray[np.float32], kind: str, stated: str) -> Decision:
    warnings = []
    if stated == "probabilities" and not sums_to_one(answers):
        raise OutputsError(
            f"--outputs probabilities: expected answers that sum to 1, got {_sums(answers)}; say "
            "--outputs logits if a softmax belongs behind them, --outputs sigmoid if each label "
            "has a probability of its own"
        )
    if stated == "sigmoid" and not are_shares(answers):
        return _sigmoid_of_logits(answers, kind, is_pair=False)
    if stated == "sigmoid" and (kind == SOFTMAX or sums_to_one(answers)):
        warnings.append(
            "--outputs sigmoid, but the model's answers sum to 1 for every image, as a softmax's "
            "do: if an image has one label only, say --outputs probabilities"
        )
    if stated == "logits" and are_shares(answers):
        what = "sum to 1 for every image" if sums_to_one(answers) else "lie between 0 and 1"
        better = "probabilities" if sums_to_one(answers) else "sigmoid"
        warnings.append(
            f"--outputs logits, but the model's answers {what}, as if they were probabilities "
            f"already: a second softmax would flatten them; --outputs {better} is likelier right"
        )
    head = logits_of(answers.shape[1]) if stated == "logits" else Head(stated)
    return Decision(head, "as said with --outputs", tuple(warnings))


def _sigmoid_of_logits(answers: NDArray[np.float32], kind: str, is_pair: bool) -> Decision:
    """For `--outputs sigmoid`, where a sigmoid is not in the graph: it belongs behind."""
    if kind != RAW:
        raise OutputsError(
            f"--outputs sigmoid: expected answers from 0 to 1, got {_range(answers)}{_hint(kind)}"
        )
    reason = "as said with --outputs; the answers are logits, and a sigmoid is put behind them"
    return Decision(Head("sigmoid", "sigmoid", is_pair), reason)


def _found(answers: NDArray[np.float32], kind: str) -> Decision:
    distribution, within = sums_to_one(answers), are_shares(answers)
    if kind == SOFTMAX and distribution:
        return Decision(Head("probabilities"), "the graph ends in a softmax")
    if kind == SIGMOID:
        return Decision(
            Head("sigmoid"),
            "the graph ends in a sigmoid: each label has a probability of its own (multi-label)",
        )
    if kind == LOGARITHM:
        return Decision(logits_of(answers.shape[1]), "the graph ends in the logarithm of a softmax")
    if distribution and not _is_one_hot(answers):
        return Decision(Head("probabilities"), "the answers sum to 1 for every image")
    if kind == RAW and not within:
        return Decision(
            logits_of(answers.shape[1]), "the graph ends without a softmax or a sigmoid"
        )
    raise OutputsError(
        f"the model does not say what it gives: its answers are {_range(answers)}, with "
        f"{_sums(answers)} for an image{_hint(kind)}; say {CHOICES}"
    )


def _of_one(answers: NDArray[np.float32], kind: str, stated: str) -> Decision:
    """One output: the probability, or the logit, of the second of two labels."""
    within = are_shares(answers)
    if kind == SOFTMAX and bool((answers == 1).all()):
        raise OutputsError(
            "the model has one output and a softmax over it, which is 1 for every image: it cannot "
            "tell two classes apart; train it with a sigmoid, or with two outputs"
        )
    if stated == "sigmoid" and not within:
        return _sigmoid_of_logits(answers, kind, is_pair=True)
    if stated == "probabilities" and not within:
        raise OutputsError(
            f"--outputs {stated}: expected answers from 0 to 1, got {_range(answers)}; say "
            "--outputs logits if a sigmoid belongs behind them"
        )
    if stated == "auto":
        if kind == SIGMOID:
            return Decision(
                Head("sigmoid", is_pair=True),
                "the graph ends in one sigmoid: the probability of the second label",
            )
        if kind != RAW or within:
            raise OutputsError(
                f"the model does not say what its one output is: its answers are "
                f"{_range(answers)}{_hint(kind)}; say {CHOICES_OF_ONE}"
            )
        reason = "the graph ends in one number without a sigmoid: the logit of the second label"
        return Decision(logits_of(1), reason)
    warnings: tuple[str, ...] = ()
    if stated == "logits" and within:
        warnings = (
            f"--outputs logits, but the model's answers are {_range(answers)}, as if a sigmoid had "
            "made them: a second sigmoid would give 0.5 to 0.73; --outputs sigmoid is likelier "
            "right",
        )
    head = logits_of(1) if stated == "logits" else Head(stated, is_pair=True)
    return Decision(head, "as said with --outputs", warnings)


def _is_one_hot(answers: NDArray[np.float32]) -> bool:
    """All 0 and 1: saturated sigmoids can look like a distribution then."""
    return bool((np.minimum(answers, 1 - answers) < TINY).all())


def _hint(kind: str) -> str:
    if kind in (SOFTMAX, SIGMOID):
        return f", although a {kind} makes them"
    return "" if kind == RAW else ", and something is computed from a sigmoid or softmax at its end"


def _range(answers: NDArray[np.float32]) -> str:
    return f"{answers.min():.4g} to {answers.max():.4g}"


def _sums(answers: NDArray[np.float32]) -> str:
    sums = answers.sum(axis=1)
    return f"sums from {sums.min():.4g} to {sums.max():.4g}"
