"""The model in LitServe: the raw body in, JSON out."""

import os
from typing import Annotated, Any

import litserve
from fastapi import Body
from onnx_answer import Answer


class Model(litserve.LitAPI):
    """Asked for a tensor or a photo, as the environment variable ROW says."""

    def setup(self, device: str) -> None:
        self._answer = Answer()
        self._tensor = os.environ["ROW"] == "tensor"

    def decode_request(
        self, request: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> bytes:
        return request

    def predict(self, x: bytes) -> Any:
        return self._answer.tensor(x)[0].tolist() if self._tensor else self._answer.photo(x)

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"probabilities": output} if self._tensor else {"top": output}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
