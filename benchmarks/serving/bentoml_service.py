"""The model in BentoML: base64 in JSON. Its binary form (pickle) is refused from outside."""

import base64

import bentoml
from onnx_answer import Answer


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Model:
    """Two routes, one for each row."""

    def __init__(self) -> None:
        self._answer = Answer()

    @bentoml.api(route="/tensor")
    async def tensor(self, content: str) -> list[float]:
        return self._answer.tensor(base64.b64decode(content))[0].tolist()  # type: ignore[no-any-return]

    @bentoml.api(route="/photo")
    async def photo(self, content: str) -> list[tuple[int, float]]:
        return self._answer.photo(base64.b64decode(content))
