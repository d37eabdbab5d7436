"""`POST /predict`: images as people and scripts have them, labels as they want them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.http.batcher import Timing
from serve.http.forms import read_form
from serve.http.limits import Limits
from serve.http.messages import FORM, OCTETS, HttpError, Request, Response, json_response
from serve.http.protocol import DEFAULT_PRIORITY, LOWEST_PRIORITY
from serve.http.served import Served
from serve.http.service import Service
from serve.images import ImageError
from serve.multi_label import MULTI_LABEL, has_labels

TOP = 5
FIELDS = ("model", "version", "top", "priority", "timeout")
RAW = ("", OCTETS, "application/x-www-form-urlencoded")
"""What scripts say of an image; the last is what curl says of any data."""


async def predict(service: Service, request: Request) -> Response:
    """Label the image in the body, or every file of a form."""
    query = request.query(*FIELDS)
    served = _find(service, query)
    request.served = served
    top = _number(query, "top", TOP, len(served.document.class_names), clip=True)
    priority = _number(query, "priority", DEFAULT_PRIORITY, LOWEST_PRIORITY)
    timeout = _seconds(query)
    names, images = _images(request, service.limits)
    request.images = len(images)
    request.timing = timing = Timing()
    with served.admitted(len(images)):
        async with service.deadline(timeout):
            found = await served.decode(images, timing)
            pixels = [image for image in found if not isinstance(image, ImageError)]
            answers = await served.predict(np.stack(pixels), priority, timing) if pixels else ()
    if not pixels and names == [None]:
        raise HttpError(422, str(found[0]))
    response = await service.compute(
        top * len(pixels), _response, served, names, found, answers, top
    )
    durations = ", ".join(
        f"{stage};dur={1000 * seconds:.3f}" for stage, seconds in timing.stages().items()
    )
    response.headers = (("Server-Timing", durations),)
    return response


def _response(
    served: Served,
    names: Sequence[str | None],
    found: Sequence[NDArray[np.uint8] | ImageError],
    answers: Iterable[NDArray[np.float32]],
    top: int,
) -> Response:
    """The answers for the images that could be read, and why the others could not."""
    remaining = iter(answers)
    results = [
        {"name": name, "error": str(image)}
        if isinstance(image, ImageError)
        else {"name": name, **_result(served, next(remaining), top)}
        for name, image in zip(names, found, strict=True)
    ]
    is_readable = any("error" not in result for result in results)
    document = {"model": served.name, "version": served.version, "results": results}
    return json_response(document, 200 if is_readable else 422)


def _result(served: Served, probabilities: NDArray[np.float32], top: int) -> dict[str, Any]:
    if served.document.task == MULTI_LABEL:
        return _multi_label_result(served, probabilities, top)
    names, rejection = served.document.class_names, served.document.rejection
    best = np.argsort(-probabilities, kind="stable")[:top]
    ranked = [
        {"label": names[index], "probability": _number_of(probabilities[index])} for index in best
    ]
    return {
        **ranked[0],
        "top": ranked,
        "uncertain": bool(rejection and probabilities[best[0]] < rejection.threshold),
    }


def _multi_label_result(
    served: Served, probabilities: NDArray[np.float32], top: int
) -> dict[str, Any]:
    """All labels of the image, and the most probable ones whether it has them or not."""
    names, thresholds = served.document.class_names, served.document.thresholds
    given = has_labels(probabilities, thresholds)

    def described(index: np.intp) -> dict[str, Any]:
        value, threshold = _number_of(probabilities[index]), thresholds[index]
        return {"label": names[index], "probability": value, "threshold": threshold}

    order = np.argsort(-probabilities, kind="stable")
    return {
        "labels": [described(index) for index in order if given[index]],
        "top": [described(index) for index in order[:top]],
    }


def _number_of(value: np.float32) -> float:
    """As the shortest text that reads back as the same float32."""
    return float(str(value))


def served_by(service: Service, request: Request) -> Served:
    """The model that a request asks. Raises UnknownModelError, or HttpError."""
    return _find(service, request.query(*FIELDS))


def _find(service: Service, query: Mapping[str, str]) -> Served:
    return service.repository.find(query.get("model"), query.get("version"))


def _number(
    query: Mapping[str, str], name: str, default: int, most: int, *, clip: bool = False
) -> int:
    text = query.get(name)
    if text is None:
        return min(default, most)
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number >= 1 and (clip or number <= most):
        return min(number, most)
    raise HttpError(400, f"{name}: expected a whole number from 1 to {most}, got {text!r:.40}")


def _seconds(query: Mapping[str, str]) -> float | None:
    text = query.get("timeout")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise HttpError(400, f"timeout: expected seconds above 0, got {text!r:.40}")
    return seconds


def _images(request: Request, limits: Limits) -> tuple[list[str | None], list[bytes]]:
    """The encoded images in a body, and their names."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == FORM:
        files = read_form(request.body, content_type, limits.max_images)
        return [name for name, _ in files], [content for _, content in files]
    if kind not in RAW and not kind.startswith("image/"):
        raise HttpError(415, f"expected an image, or images as {FORM}, got {content_type!r:.80}")
    if not request.body:
        raise HttpError(400, "expected an image as the body, got 0 bytes")
    return [None], [request.body]
