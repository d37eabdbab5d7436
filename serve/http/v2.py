"""The Open Inference Protocol v2: what each of its paths answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import serve
from serve.bundle import INPUT, OUTPUT, BundleDocument
from serve.http.batcher import SLICE, Timing
from serve.http.messages import OCTETS, HttpError, Request, Response, json_response
from serve.http.protocol import (
    DEFAULT_PRIORITY,
    HEADER_LENGTH,
    LOWEST_PRIORITY,
    ProtocolError,
    read_infer_request,
    read_json,
    write_infer_response,
)
from serve.http.served import Served
from serve.http.service import Service
from serve.images import ImageError

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "model_repository",
              "model_repository(unload_dependents)", "schedule_policy", "statistics")  # fmt: skip
PLATFORM = "onnxruntime_onnx"


async def server_metadata(service: Service, request: Request) -> Response:
    return json_response(
        {"name": "lockstep", "version": serve.__version__, "extensions": EXTENSIONS}
    )


async def live(service: Service, request: Request) -> Response:
    return json_response({"live": True})


async def ready(service: Service, request: Request) -> Response:
    return json_response({"ready": service.is_ready}, 200 if service.is_ready else 503)


async def model_ready(service: Service, request: Request) -> Response:
    served = find(service, request)
    is_ready = not service.stopping
    return json_response({"name": served.name, "ready": is_ready}, 200 if is_ready else 503)


async def model_metadata(service: Service, request: Request) -> Response:
    served = find(service, request)
    document = served.document
    return json_response(
        {
            "name": served.name,
            "versions": _numbers(service, request, served),
            "platform": PLATFORM,
            "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *document.image.shape]}],
            "outputs": [
                {"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(document.class_names)]}
            ],
        }
    )


async def model_config(service: Service, request: Request) -> Response:
    """In the form of Triton's model configuration, as far as it has words for it."""
    served = find(service, request)
    document, plan = served.document, served.plan
    return json_response(
        {
            "name": served.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "max_batch_size": service.limits.max_images,
            "input": [
                {
                    "name": INPUT,
                    "data_type": "TYPE_UINT8",
                    "format": "FORMAT_NHWC",
                    "dims": list(document.image.shape),
                }
            ],
            "output": [
                {"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [len(document.class_names)]}
            ],
            "instance_group": [
                {
                    "name": served.name,
                    "kind": "KIND_CPU",
                    "count": plan.callers,
                }
            ],
            "dynamic_batching": {
                "preferred_batch_size": [plan.batch],
                "max_queue_delay_microseconds": round(1e6 * plan.max_delay),
                "priority_levels": LOWEST_PRIORITY,
                "default_priority_level": DEFAULT_PRIORITY,
                "default_queue_policy": {
                    "timeout_action": "REJECT",
                    "default_timeout_microseconds": round(1e6 * service.timeout),
                    "allow_timeout_override": True,
                    "max_queue_size": served.max_queue,
                },
            },
            "parameters": {
                "intra_op_num_threads": {"string_value": str(plan.threads)},
                "largest_slice": {"string_value": str(SLICE)},
                "encoded_images": {"string_value": f"{INPUT}: BYTES [batch]"},
                "task": {"string_value": document.task},
                **_thresholds(document),
            },
        }
    )


def _thresholds(document: BundleDocument) -> dict[str, Any]:
    """Of a multi-label model, in the order of its labels."""
    if not document.thresholds:
        return {}
    return {"thresholds": {"string_value": ",".join(map(str, document.thresholds))}}


async def model_statistics(service: Service, request: Request) -> Response:
    if request.model:
        served = find(service, request)
        chosen = [served] if request.version else service.repository.versions(served.name)
    else:
        chosen = service.repository.all()
    return json_response(
        {"model_stats": [item.statistics.to_json(item.name, item.version) for item in chosen]}
    )


async def repository_index(service: Service, request: Request) -> Response:
    document = _body(service, request)
    ready_only = document.get("ready", False)
    if not isinstance(ready_only, bool) or set(document) - {"ready"}:
        raise HttpError(400, 'expected {"ready": true or false} or nothing')
    entries = service.repository.index()
    return json_response([item for item in entries if not ready_only or item["state"] == "READY"])


async def repository_load(service: Service, request: Request) -> Response:
    if _body(service, request).get("parameters", {}) != {}:
        raise HttpError(
            400,
            "a model is loaded as it lies in its folder: no configuration and no files can be "
            "given with the request",
        )
    await service.change("load", request.model)
    return json_response({})


async def repository_unload(service: Service, request: Request) -> Response:
    parameters = _body(service, request).get("parameters", {})
    if not isinstance(parameters, dict) or set(parameters) - {"unload_dependents"}:
        raise HttpError(400, "parameters: expected none but unload_dependents")
    await service.change("unload", request.model)
    return json_response({})


async def infer(service: Service, request: Request) -> Response:
    served = find(service, request)
    header_length = request.headers.get(HEADER_LENGTH.lower())
    asked = await service.compute(
        len(request.body) if header_length is None else 0,
        read_infer_request,
        request.body,
        header_length,
        served.document.image.shape,
        len(served.document.class_names),
        service.limits,
    )
    request.id, request.images = asked.id, len(asked.images)
    request.timing = timing = Timing()
    with served.admitted(len(asked.images)):
        async with service.deadline(asked.timeout):
            pixels = asked.images
            if isinstance(pixels, list):
                pixels = await _decoded(served, pixels, timing)
            probabilities = await served.predict(pixels, asked.priority, timing)
    body, json_length = await service.compute(
        probabilities.size,
        write_infer_response,
        asked,
        served.name,
        served.version,
        served.document.class_names,
        probabilities,
    )
    if json_length is None:
        return Response(200, body)
    return Response(200, body, OCTETS, ((HEADER_LENGTH, str(json_length)),))


async def _decoded(served: Served, images: Sequence[bytes], timing: Timing) -> Any:
    found = await served.decode(images, timing)
    for number, image in enumerate(found):
        if isinstance(image, ImageError):
            where = f"image {number}: " if len(found) > 1 else ""
            raise HttpError(422, f"{where}{image}")
    return np.stack(found)  # type: ignore[arg-type]


def find(service: Service, request: Request) -> Served:
    served = service.repository.find(request.model, request.version)
    request.served = served
    return served


def _numbers(service: Service, request: Request, served: Served) -> list[str]:
    if request.version:
        return [served.version]
    return [item.version for item in service.repository.versions(served.name)]


def _body(service: Service, request: Request) -> dict[str, Any]:
    """The JSON object in the body of a request that needs none."""
    document = read_json(request.body, service.limits) if request.body else {}
    if not isinstance(document, dict):
        raise ProtocolError("expected a JSON object, or nothing")
    return document
