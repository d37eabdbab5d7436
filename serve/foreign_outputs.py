"""What the numbers mean that a model from elsewhere answers with.

| said with --outputs | one output, two labels | as many outputs as labels |
|---|---|---|
| logits | sigmoid, then `[1 - p, p]` | softmax |
| probabilities | `[1 - p, p]` | as they are; they must sum to 1 |
| sigmoid | `[1 - p, p]` | multi-label |
| nothing | `[1 - p, p]` | softmax, unless the graph ends in one |

With `sigmoid`, and with one output where nothing was said, a sigmoid is added where the graph ends
in a layer with weights and no sigmoid. A person is asked where graph and numbers leave it open:
above all where all answers lie between 0 and 1 without summing to 1, as those of a sigmoid do.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from serve.bundle import TASKS
from serve.description import Description, ForeignModelError
from serve.graph_head import LINEAR, OTHER, SIGMOID, SOFTMAX, head
from serve.onnx_file import OnnxFile
from serve.probabilities import are_shares, sigmoid, softmax, sums_to_one

SINGLE_LABEL, MULTI_LABEL = TASKS

ASK = (
    "say --outputs sigmoid if each label has a probability of its own (multi-label), --outputs "
    "probabilities if they sum to 1, or --outputs logits if a softmax belongs behind the model"
)
ASK_OF_ONE = (
    "say --outputs probabilities if the output is the probability of the second label, or "
    "--outputs logits if a sigmoid belongs behind the model"
)

Numbers = NDArray[np.float32]


class Outputs:
    """How the numbers `[batch, outputs]` of a model become probabilities `[batch, labels]`.

    Args:
        activation: what belongs behind the model: `softmax`, `sigmoid` or None.
        is_binary: the one output is about the second of two labels.
        is_settled: what the numbers are needs no confirmation by the numbers themselves.

    Attributes:
        task: "single-label" or "multi-label".
    """

    def __init__(
        self,
        task: str,
        activation: Callable[[Numbers], Numbers] | None,
        *,
        is_binary: bool = False,
        is_settled: bool = True,
    ) -> None:
        self.task = task
        self._activation, self._is_binary, self._is_settled = activation, is_binary, is_settled

    def probabilities(self, numbers: Numbers) -> Numbers:
        """float32 `[batch, outputs]` to float32 `[batch, labels]`.

        Raises:
            ForeignModelError: the numbers are not what they are taken for.
        """
        if not np.isfinite(numbers).all():
            raise ForeignModelError("the model answers with what are no finite numbers")
        if self._activation is None:
            self._check_probabilities(numbers)
        elif not self._is_settled:
            self._check_logits(numbers)
        answers = self._activation(numbers) if self._activation else numbers
        return np.concatenate([1 - answers, answers], axis=1) if self._is_binary else answers

    def _check_probabilities(self, numbers: Numbers) -> None:
        if self._is_binary or self.task == MULTI_LABEL:
            if not are_shares(numbers):
                raise ForeignModelError(
                    "expected probabilities between 0 and 1, got answers from "
                    f"{numbers.min():.4g} to {numbers.max():.4g}; "
                    + (ASK_OF_ONE if self._is_binary else "add a sigmoid to the end of the graph")
                )
        elif not sums_to_one(numbers):
            raise ForeignModelError(
                "expected probabilities that sum to 1 for every image; say --outputs logits if a "
                "softmax belongs behind the model, or --outputs sigmoid if each label has a "
                "probability of its own"
            )

    def _check_logits(self, numbers: Numbers) -> None:
        """Logits leave the range from 0 to 1 sooner or later; then the matter is settled."""
        if sums_to_one(numbers):
            raise ForeignModelError(
                "the answers already sum to 1, and the graph does not end in a Softmax: "
                "say --outputs probabilities or --outputs logits"
            )
        telling = numbers[(numbers != 0).any(axis=1)]  # a black image without biases is not
        if len(telling) and are_shares(telling, 0):
            raise ForeignModelError(
                f"all answers lie between 0 and 1 and do not sum to 1, as a sigmoid's do: {ASK}"
            )
        self._is_settled = bool(len(telling))


def outputs_of(file: OnnxFile, described: Description, count: int) -> Outputs:
    """What a graph's outputs are, by what was said and by what the graph ends in.

    Args:
        count: numbers for each image.

    Raises:
        ForeignModelError: another number of labels, or the person has to say more.
    """
    labels, said = len(described.class_names), described.outputs
    if count == 1 and labels == 2:
        return _of_one_output(file, said)
    if count != labels:
        raise ForeignModelError(f"expected {count} labels, one for each output, got {labels}")
    if said == "sigmoid":
        return _of_sigmoids(file)
    if said == "probabilities":
        return Outputs(SINGLE_LABEL, None)
    if said == "logits":
        return Outputs(SINGLE_LABEL, softmax)
    return _of_one_choice(file)


def _of_one_output(file: OnnxFile, said: str) -> Outputs:
    end = head(file)
    if end == SOFTMAX:
        raise ForeignModelError(
            "the graph ends in a Softmax over one output, which is always 1; export the model "
            "with a sigmoid or with its logit"
        )
    if said == "auto" and end == OTHER:
        raise ForeignModelError(
            f"the graph has one output for two labels and ends in {_last(file)}: {ASK_OF_ONE}"
        )
    is_logit = said == "logits" or (said in ("auto", "sigmoid") and end == LINEAR)
    return Outputs(SINGLE_LABEL, sigmoid if is_logit else None, is_binary=True)


def _of_sigmoids(file: OnnxFile) -> Outputs:
    end = head(file)
    if end == SOFTMAX:
        raise ForeignModelError(
            "--outputs sigmoid: the graph ends in a Softmax, whose labels exclude each other; "
            "leave the option out"
        )
    return Outputs(MULTI_LABEL, sigmoid if end == LINEAR else None)


def _of_one_choice(file: OnnxFile) -> Outputs:
    end = head(file)
    if end == SOFTMAX:
        return Outputs(SINGLE_LABEL, None)
    if end == SIGMOID:
        raise ForeignModelError(f"the graph has a Sigmoid at its end ({_last(file)}): {ASK}")
    if "Softmax" in file.operators:
        raise ForeignModelError(
            f"the graph has a Softmax and ends in {_last(file)}: "
            "say --outputs logits or --outputs probabilities"
        )
    return Outputs(SINGLE_LABEL, softmax, is_settled=False)


def _last(file: OnnxFile) -> str:
    return file.last_operator or "no operator"
