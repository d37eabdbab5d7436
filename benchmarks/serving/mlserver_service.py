"""The model in MLServer. V2 in JSON: its REST form has no binary tensors, so bytes go as base64."""

import base64

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_answer import Answer


class Model(MLModel):
    """Asked for a tensor or a photo, as the input is named."""

    async def load(self) -> bool:
        self._answer = Answer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (tensor,) = payload.inputs
        (text,) = tensor.data
        content = base64.b64decode(text)
        if tensor.name == "tensor":
            values = {"probabilities": self._answer.tensor(content)}
        else:
            classes, probabilities = zip(*self._answer.photo(content), strict=True)
            values = {"classes": np.array([classes]), "probabilities": np.array([probabilities])}
        outputs = [NumpyCodec.encode_output(name, array) for name, array in values.items()]
        return InferenceResponse(model_name=self.name, outputs=outputs)
