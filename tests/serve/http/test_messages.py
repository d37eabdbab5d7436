"""What a request says of itself."""

import pytest

from serve.http.messages import Request


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v2?x=/y", "/v2"),
        ("/", "/"),
        ("http://host:80/v2/models?x", "/v2/models"),
        ("https://host", "/"),
        ("ftp://host/v2", "ftp://host/v2"),
        ("*", "*"),
        ("", ""),
    ],
)
def test_the_path_of_a_target(target: str, path: str) -> None:
    assert Request("GET", target, {}, "", 0.0).path == path
