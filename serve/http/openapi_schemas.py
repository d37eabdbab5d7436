"""What the JSON that clients send and get looks like, as JSON Schema."""

from collections.abc import Mapping
from typing import Any

from serve.bundle import FORMAT, INPUT, OUTPUT, PRECISIONS, STATUSES, TASKS
from serve.http.limits import Limits
from serve.http.protocol import DEFAULT_PRIORITY, LOWEST_PRIORITY
from serve.http.v2 import EXTENSIONS, PLATFORM
from serve.image_formats import READABLE
from serve.image_spec import MOST_SIDE, RESAMPLINGS, RESIZES

Schema = dict[str, Any]


def schemas(limits: Limits) -> dict[str, Schema]:
    """By the names under which `ref` finds them."""
    return {**_people(), **_infer(limits), **_models(), **_repository()}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def typed(kind: str, description: str = "", /, **more: Any) -> Schema:
    return {"type": kind, **({"description": description} if description else {}), **more}


def text(description: str = "", /, **more: Any) -> Schema:
    return typed("string", description, **more)


def integer(description: str = "", /, **more: Any) -> Schema:
    return typed("integer", description, **more)


def number(description: str = "", /, **more: Any) -> Schema:
    return typed("number", description, **more)


def boolean(description: str = "", /, **more: Any) -> Schema:
    return typed("boolean", description, **more)


def array(items: Schema, description: str = "", /, **more: Any) -> Schema:
    return typed("array", description, items=items, **more)


def record(
    description: str = "", optional: Mapping[str, Schema] | None = None, /, **required: Schema
) -> Schema:
    """An object with these fields and no others."""
    fields = {"properties": {**required, **(optional or {})}, "additionalProperties": False}
    return typed("object", description, **({"required": [*required]} if required else {}), **fields)


def open_record(description: str = "", /, **optional: Schema) -> Schema:
    """An object with fields that have a meaning, and others that are passed over."""
    return typed("object", description, properties=optional)


def nullable(schema: Schema) -> Schema:
    """The same, or null, which some clients write where they have nothing."""
    return {**schema, "type": [schema["type"], "null"]}


def mapping(values: Schema, description: str, /) -> Schema:
    return typed("object", description, additionalProperties=values)


def binary(description: str = "", /, **more: Any) -> Schema:
    return text(description, format="binary", **more)


_PREDICTION = {
    "model": "fashion-mnist",
    "version": "1",
    "results": [
        {
            "name": "shoe.jpg",
            "label": "Ankle boot",
            "probability": 0.98,
            "top": [
                {"label": "Ankle boot", "probability": 0.98},
                {"label": "Sneaker", "probability": 0.015},
            ],
            "uncertain": False,
        },
        {"name": "notes.txt", "error": f"not an image: expected {READABLE}"},
    ],
}

_MULTI_LABEL_PREDICTION = {
    "model": "street",
    "version": "1",
    "results": [
        {
            "name": "crossing.jpg",
            "labels": [
                {"label": "car", "probability": 0.97, "threshold": 0.5},
                {"label": "bicycle", "probability": 0.62, "threshold": 0.5},
            ],
            "top": [
                {"label": "car", "probability": 0.97, "threshold": 0.5},
                {"label": "bicycle", "probability": 0.62, "threshold": 0.5},
                {"label": "bus", "probability": 0.08, "threshold": 0.5},
            ],
        },
    ],
}


def _people() -> dict[str, Schema]:
    """Errors, and what /predict answers."""
    label = {
        "label": text("The best class."),
        "probability": number("From 0 to 1.", minimum=0),
    }
    name = {"type": ["string", "null"], "description": "The file's name; null for a raw body."}
    return {
        "Error": record("What went wrong: what was expected, and what came instead.", error=text()),
        "Label": record("A class and how probable it is.", **label),
        "Labelled": record(
            "An image that was read.",
            name=name,
            **label,
            top=array(ref("Label"), "The most probable classes, best first.", minItems=1),
            uncertain=boolean("The probability is below the bundle's rejection threshold."),
        ),
        "LabelOfSeveral": record(
            "A label of a multi-label model, whose probability stands for itself.",
            label=text("Its name."),
            probability=number("From 0 to 1.", minimum=0),
            threshold=number("From this probability on, an image has it.", minimum=0, maximum=1),
        ),
        "MultiLabelled": record(
            "An image that was read by a multi-label model.",
            name=name,
            labels=array(
                ref("LabelOfSeveral"),
                "Every label whose probability reaches its threshold, most probable first: none, "
                "one or several.",
            ),
            top=array(
                ref("LabelOfSeveral"),
                "The most probable labels, best first, whether the image has them or not.",
                minItems=1,
            ),
        ),
        "Unreadable": record(
            "A file that could not be read. Those beside it are answered.",
            name=text("The file's name."),
            error=text("Why."),
        ),
        "Prediction": {
            **record(
                "One result for each image, in the order in which they were sent.",
                model=text(),
                version=text(),
                results=array(
                    {"anyOf": [ref("Labelled"), ref("MultiLabelled"), ref("Unreadable")]},
                    minItems=1,
                ),
            ),
            "examples": [_PREDICTION, _MULTI_LABEL_PREDICTION],
        },
    }


def _nested(item: Schema, depth: int) -> Schema:
    return array(_nested(item, depth - 1), minItems=1) if depth else item


def _infer(limits: Limits) -> dict[str, Schema]:
    """The bodies of an inference."""
    images = integer("Images.", minimum=1, maximum=limits.max_images)
    pixel, size = integer(minimum=0, maximum=255), integer(minimum=1)
    pixels = {
        "description": "Grey or RGB values, row by row: flat, or nested like the shape. Whole "
        "numbers, written without a point.",
        "anyOf": [_nested(pixel, 1), _nested(pixel, 4)],
    }
    encoded = text("An image file as base64.", contentEncoding="base64")
    described = {
        "name": {"const": OUTPUT},
        "shape": array(integer(minimum=1), "Images, and values for each.", minItems=2, maxItems=2),
    }
    return {
        "Pixels": record(
            "Images as the model sees them: uint8, already of its size.",
            {"parameters": nullable(open_record("Passed over."))},
            name={"const": INPUT},
            datatype={"const": "UINT8"},
            shape={
                "description": "Images, height, width, channels; all but the first as the model's "
                "metadata say.",
                "type": "array",
                "prefixItems": [images, size, size, {"enum": [1, 3]}],
                "items": False,
                "minItems": 4,
            },
            data=pixels,
        ),
        "EncodedImages": record(
            "Image files of any size, decoded and resized as the model was trained.",
            {"parameters": nullable(open_record("Passed over."))},
            name={"const": INPUT},
            datatype={"const": "BYTES"},
            shape=array(images, "How many.", minItems=1, maxItems=1),
            data=array(encoded, minItems=1, maxItems=limits.max_images),
        ),
        "RequestedOutput": record(
            "How the answer should look.",
            {
                "parameters": {
                    **nullable(
                        open_record(
                            "Others are passed over; shared memory is refused.",
                            binary_data=boolean("Send it in binary form, behind the JSON."),
                            classification=integer(
                                "Send so many labels, as `probability:index:label`, instead of "
                                "all probabilities; 0 sends probabilities.",
                                minimum=0,
                            ),
                        )
                    ),
                    "patternProperties": {"^shared_memory": False},
                }
            },
            name={"const": OUTPUT},
        ),
        "InferRequest": record(
            "",
            {
                "id": nullable(text("Comes back in the answer, and stands in the access log.")),
                "parameters": nullable(
                    open_record(
                        "Others are passed over.",
                        priority=integer(
                            f"1 goes first, {LOWEST_PRIORITY} last; 0 is {DEFAULT_PRIORITY}.",
                            minimum=0,
                            maximum=LOWEST_PRIORITY,
                        ),
                        timeout=integer(
                            "Microseconds until nobody wants the answer; 0 is the server's "
                            "own limit.",
                            minimum=0,
                            maximum=2**63 - 1,
                        ),
                        binary_data_output=boolean("Send every output in binary form."),
                    )
                ),
                "outputs": {
                    **array(ref("RequestedOutput"), "Leave it out for all.", maxItems=1),
                    "type": ["array", "null"],
                },
            },
            inputs=array({"anyOf": [ref("EncodedImages"), ref("Pixels")]}, minItems=1, maxItems=1),
        ),
        "Probabilities": record(
            "Probabilities of every class, image after image. They sum to 1 for each image, but "
            "not those of a multi-label model.",
            **described,
            datatype={"const": "FP32"},
            data=array(number(minimum=0)),
        ),
        "Classes": record(
            "The classification extension: the best classes, image after image.",
            **described,
            datatype={"const": "BYTES"},
            data=array(text("`probability:index:label`")),
        ),
        "InferResponse": record(
            "",
            {"id": text("That of the request, if it had one.")},
            model_name=text(),
            model_version=text(),
            outputs=array(
                {"anyOf": [ref("Probabilities"), ref("Classes")]}, minItems=1, maxItems=1
            ),
        ),
    }


def _models() -> dict[str, Schema]:
    """What models say of themselves."""
    tensor = record(
        "A size of -1 is the number of images, which is free.",
        name=text(),
        datatype=text(),
        shape=array(integer()),
    )
    words = record(string_value=text())
    duration = record("How often, and nanoseconds altogether.", count=_count(), ns=_count())
    return {
        "ServerMetadata": record(
            name={"const": "lockstep"},
            version=text("Of Lockstep."),
            extensions=array({"enum": [*EXTENSIONS]}, "Of the protocol."),
        ),
        "Live": record(live={"const": True}),
        "Ready": record(ready=boolean()),
        "ModelReady": record(name=text(), ready=boolean()),
        "Tensor": tensor,
        "ModelMetadata": record(
            name=text(),
            versions=array(text(), "Those that are served."),
            platform={"const": PLATFORM},
            inputs=array(ref("Tensor")),
            outputs=array(ref("Tensor")),
        ),
        "ModelConfig": record(
            "Triton's model configuration, as far as it has words for what happens here.",
            name=text(),
            platform={"const": PLATFORM},
            backend={"const": "onnxruntime"},
            max_batch_size=_count("Images in one request, at most."),
            input=array(record(name=text(), data_type=text(), format=text(), dims=array(_count()))),
            output=array(record(name=text(), data_type=text(), dims=array(_count()))),
            instance_group=array(
                record(name=text(), kind=text(), count=_count("Calls at the same time."))
            ),
            dynamic_batching=record(
                "What was measured to serve best at start, or what `--batching` said.",
                preferred_batch_size=array(_count()),
                max_queue_delay_microseconds=_count(),
                priority_levels=_count(),
                default_priority_level=_count(),
                default_queue_policy=record(
                    timeout_action=text(),
                    default_timeout_microseconds=_count(),
                    allow_timeout_override=boolean(),
                    max_queue_size=_count("Images that may wait; more get status 429."),
                ),
            ),
            parameters=record(
                "",
                {"thresholds": words},
                intra_op_num_threads=words,
                largest_slice=words,
                encoded_images=words,
                task=words,
            ),
        ),
        "Duration": duration,
        "ModelStatistics": record(
            model_stats=array(
                record(
                    name=text(),
                    version=text(),
                    last_inference=_count("Milliseconds since 1970; 0 if there was none."),
                    inference_count=_count("Images."),
                    execution_count=_count("Calls of the model."),
                    inference_stats=record(
                        success=ref("Duration"),
                        fail=ref("Duration"),
                        queue=ref("Duration"),
                        compute_input=ref("Duration"),
                        compute_infer=ref("Duration"),
                        compute_output=ref("Duration"),
                        cache_hit=ref("Duration"),
                        cache_miss=ref("Duration"),
                    ),
                    batch_stats=array(
                        record(batch_size=_count(), compute_infer=ref("Duration")),
                        "Calls by the number of images in them.",
                    ),
                )
            ),
        ),
        "Models": record(
            models=array(
                record(
                    name=text(),
                    version=text("The one that answers where none is named."),
                    versions=array(text(), minItems=1),
                    document=ref("Document"),
                )
            ),
        ),
        "Document": _document(),
    }


def _document() -> Schema:
    """See `serve.bundle.BundleDocument`."""
    share = number(minimum=0, maximum=1)
    return record(
        "What a bundle says of itself. Its digest covers every field.",
        format={"const": FORMAT},
        class_names=array(text(), "In the order of the probabilities.", minItems=1),
        image=record(
            "How an image file becomes the model's input.",
            height=integer(minimum=1, maximum=MOST_SIDE),
            width=integer(minimum=1, maximum=MOST_SIDE),
            channels=integer("1 is grey, 3 is RGB.", enum=[1, 3]),
            resize=text("How another shape is fitted.", enum=[*RESIZES]),
            resample=text("The filter of the resize.", enum=[*RESAMPLINGS]),
            background=integer("Grey under transparent pixels.", minimum=0, maximum=255),
            max_pixels=integer("Larger images are refused.", minimum=1),
            scaled_decode=boolean("Large JPEGs may be shrunk while they are decoded."),
        ),
        mean=array(number(), "Of each channel; normalization is part of the graph."),
        std=array(number(), "Of each channel."),
        temperature=number("Divides the logits, in the graph.", exclusiveMinimum=0),
        rejection={
            "description": "Where an answer is better called uncertain, if that is known.",
            "anyOf": [record(threshold=share, coverage=share, accuracy=share), typed("null")],
        },
        precision=text("Of the graph's numbers.", enum=[*PRECISIONS]),
        metrics=mapping(number(), "Figures on the test split."),
        parity=mapping(mapping(number(), ""), "The proof: each path's figures against Keras."),
        versions=mapping(text(), "The tools that made the file."),
        created=text("When, as ISO 8601 in UTC."),
        dataset_fingerprint=text("SHA-256 of the images that it was trained on."),
        config_hash=text("SHA-256 of the options that it was made with."),
        task=text(
            "Whether an image has one label of several, or any number of them.", enum=[*TASKS]
        ),
        thresholds=array(
            share, "Multi-label: from which probability on an image has a label. Else empty."
        ),
        verdict=array(
            record(
                "One finding about what the model is worth.",
                name=text("What was looked at."),
                status=text("unknown where there are too few images to tell.", enum=[*STATUSES]),
                text=text("The finding, with its figures."),
            ),
            "Whether the model is any good, apart from being the same everywhere.",
        ),
    )


def _repository() -> dict[str, Schema]:
    """The model repository extension."""
    return {
        "IndexRequest": record("", {"ready": boolean("Only what answers.", default=False)}),
        "Index": array(
            record(
                name=text(),
                version=text(),
                state=text(enum=["READY", "UNAVAILABLE"]),
                reason=text("Why it does not answer."),
            )
        ),
        "LoadRequest": open_record(
            parameters=typed("object", "None: a model is loaded as it lies.", maxProperties=0)
        ),
        "UnloadRequest": open_record(
            parameters=record(
                "", {"unload_dependents": {"description": "Nothing depends on a bundle."}}
            ),
        ),
        "Nothing": record("It is done."),
    }


def _count(description: str = "") -> Schema:
    return integer(description, minimum=0)
