"""What the statistics extension of the protocol asks for."""

import collections
import time
from typing import Any


class Statistics:
    """Counts and nanoseconds, as the protocol's statistics extension wants them."""

    def __init__(self) -> None:
        self._counts: collections.Counter[str] = collections.Counter()
        self._seconds: collections.Counter[str] = collections.Counter()
        self._calls: collections.Counter[int] = collections.Counter()
        self._call_seconds: collections.Counter[int] = collections.Counter()
        self._last = 0.0

    def add(self, name: str, seconds: float) -> None:
        self._counts[name] += 1
        self._seconds[name] += seconds  # type: ignore[assignment]

    def add_call(self, size: int, seconds: float) -> None:
        self._calls[size] += 1
        self._call_seconds[size] += seconds  # type: ignore[assignment]
        self._last = time.time()

    def to_json(self, name: str, version: str) -> dict[str, Any]:
        stages = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
                  "cache_hit", "cache_miss")  # fmt: skip
        return {
            "name": name,
            "version": version,
            "last_inference": round(self._last * 1000),
            "inference_count": sum(size * calls for size, calls in self._calls.items()),
            "execution_count": self._calls.total(),
            "inference_stats": {
                stage: {"count": self._counts[stage], "ns": round(1e9 * self._seconds[stage])}
                for stage in stages
            },
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_infer": {
                        "count": self._calls[size],
                        "ns": round(1e9 * self._call_seconds[size]),
                    },
                }
                for size in sorted(self._calls)
            ],
        }
