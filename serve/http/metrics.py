"""What Prometheus is told. With several workers, each keeps its numbers in files that all read."""

import os
import time

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

import serve

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus_client reads when it is imported."""

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES = ("decode", "queue", "compute")
OUTCOMES = {499: "gave up", 429: "refused", 503: "refused", 504: "expired"}

_MODEL = ("model", "version")

http_requests = Counter(
    "lockstep_http_requests", "Answers, by path and status.", ("method", "path", "status")
)
http_seconds = Histogram(
    "lockstep_http_request_seconds", "From first byte to answer.", ("path",), buckets=SECONDS
)
requests = Counter(
    "lockstep_model_requests", "Requests of a model, by outcome.", (*_MODEL, "outcome")
)
images = Counter("lockstep_images", "Images that were answered.", _MODEL)
stage_seconds = Histogram(
    "lockstep_stage_seconds",
    "Time of a request in each stage: decode, queue, compute.",
    (*_MODEL, "stage"),
    buckets=SECONDS,
)
batch_images = Histogram("lockstep_batch_images", "Images in a call.", _MODEL, buckets=SIZES)
queue_images = Gauge(
    "lockstep_queue_images", "Images waiting or computed.", _MODEL, multiprocess_mode="livesum"
)
loads = Counter("lockstep_model_loads", "Versions loaded and refused.", (*_MODEL, "outcome"))
connections = Gauge("lockstep_connections", "Open connections.", multiprocess_mode="livesum")
held_bytes = Gauge("lockstep_held_bytes", "Bodies and pixels held.", multiprocess_mode="livesum")
started = Gauge(
    "lockstep_start_time_seconds", "When it started.", ("version",), multiprocess_mode="livemin"
)
started.labels(serve.__version__).set(time.time())


def outcome(status: int) -> str:
    """What became of a request, in one word or two."""
    if status < 400:
        return "ok"
    return OUTCOMES.get(status, "failed" if status >= 500 else "invalid")


def page() -> tuple[bytes, str]:
    """All numbers as text, and its content type."""
    registry = REGISTRY
    if SHARED_FOLDER in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST
