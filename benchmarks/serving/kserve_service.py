"""The model in KServe. V2, binary tensors in and out; a photo goes in as base64 in JSON."""

import base64
import os
from typing import Any

import kserve
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse
from onnx_answer import Answer


class Model(kserve.Model):
    """Asked for a tensor or a photo, as the environment variable ROW says."""

    def __init__(self) -> None:
        super().__init__("model")
        self._answer = Answer()
        self._tensor = os.environ["ROW"] == "tensor"
        self.ready = True

    async def predict(self, payload: InferRequest, *_: object) -> InferResponse:
        content: Any = payload.inputs[0].as_numpy()
        if self._tensor:
            outputs = [_output("probabilities", "FP32", self._answer.tensor(content.tobytes()))]
        else:
            best = self._answer.photo(base64.b64decode(content[0]))
            classes, probabilities = zip(*best, strict=True)
            outputs = [
                _output("probabilities", "FP32", np.array([probabilities], np.float32)),
                _output("classes", "INT32", np.array([classes], np.int32)),
            ]
        return InferResponse(payload.id or "1", self.name, outputs, use_binary_outputs=True)


def _output(name: str, datatype: str, values: np.ndarray[Any, Any]) -> InferOutput:
    output = InferOutput(name, list(values.shape), datatype)
    output.set_data_from_numpy(values, binary_data=True)
    return output


if __name__ == "__main__":
    server = kserve.ModelServer(
        http_port=int(os.environ["PORT"]), enable_grpc=False, workers=1, access_log_format=None
    )
    server.start([Model()])
