"""Who may ask: API keys, pages of other hosts, and TLS."""

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve.command import LockstepError
from serve.http.messages import HttpError
from serve.http.security import Gate, read_keys

KEY, OTHER = "correct-horse-battery", "0123456789abcdef"
GOOD, BAD = "https://good.example", "https://bad.example"
ANSWER_HEADERS = ("access-control-allow-origin", "access-control-allow-credentials")


# API keys


def test_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# of the shop\n{KEY}\n\n  {OTHER}  \n#{'x' * 20}\n")
    assert read_keys(file) == [KEY, OTHER]


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "at least one key"),
        (b"\n\n# nothing\n", "at least one key"),
        (f"{KEY}\nshort\n".encode(), "at least 16 characters"),
        ("schlüssel-zum-garten\n".encode(), "ASCII"),
        (b"\x00\xff" * 20, "ASCII"),
    ],
)
def test_files_that_hold_no_good_keys_are_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(LockstepError, match=reason) as refused:
        read_keys(file)
    assert str(file) in str(refused.value)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"authorization": f"BEARER   {KEY} "},
        {"authorization": f"Bearer {OTHER}"},
        {"x-api-key": KEY},
        {"authorization": "Basic dTpw", "x-api-key": KEY},
    ],
)
def test_a_key_opens(headers: dict[str, str]) -> None:
    Gate([KEY, OTHER]).check_key(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": KEY},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY[:-1]}"},
        {"authorization": f"Bearer {KEY}x"},
        {"authorization": f"Bearer {KEY.upper()}"},
        {"authorization": f"Bearer {KEY}, Bearer {KEY}"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {KEY}"},
        {"x-api-key": f"{KEY}, {KEY}"},
        {"x-api-key": "schlüssel" * 3},
        {"x-api-key": "\xff" * 20},
    ],
)
def test_no_other_key_does(headers: dict[str, str]) -> None:
    with pytest.raises(HttpError) as refused:
        Gate([KEY]).check_key(headers)
    assert refused.value.status == 401
    assert ("WWW-Authenticate", "Bearer") in refused.value.headers
    assert KEY not in str(refused.value)


def test_without_keys_everybody_may_ask() -> None:
    Gate().check_key({})
    Gate().check_key({"authorization": "Bearer whatever"})


# Origins


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:8000"},  # no browser
        {"host": "localhost:8000", "origin": "http://localhost:8000"},
        {"host": "[::1]:8000", "origin": "http://[::1]:8000"},
        {"host": "shop.example", "origin": "https://shop.example"},  # behind a proxy
        {"host": "localhost:8000", "origin": GOOD},
    ],
)
def test_own_pages_and_named_ones_may_ask(headers: dict[str, str]) -> None:
    Gate(origins=[GOOD]).check_origin(headers)


@pytest.mark.parametrize(
    "origin",
    [
        BAD,
        "null",
        "",
        "http://localhost",
        "http://localhost:9000",
        "http://localhost:8000.bad.example",
        "http://localhost:8000@bad.example",
        "localhost:8000",
        GOOD.replace("https", "http"),
        GOOD + ".bad.example",
        GOOD + "/",
        GOOD.upper(),
        f"{GOOD}, {BAD}",
        f"{BAD}, {GOOD}",
    ],
)
def test_other_pages_may_not(origin: str) -> None:
    gate = Gate(origins=[GOOD])
    headers = {"host": "localhost:8000", "origin": origin}
    with pytest.raises(HttpError) as refused:
        gate.check_origin(headers)
    assert refused.value.status == 403
    assert gate.cors(headers) == ()
    assert gate.preflight(headers, "POST") == ()


@pytest.mark.parametrize(
    "headers", [{"origin": BAD}, {"origin": "null"}, {"origin": "null", "host": ""}]
)
def test_no_page_is_its_own_without_a_host(headers: dict[str, str]) -> None:
    with pytest.raises(HttpError):
        Gate().check_origin(headers)


def test_a_star_lets_every_page_ask() -> None:
    gate = Gate(origins=["*"])
    headers = {"host": "localhost:8000", "origin": BAD}
    gate.check_origin(headers)
    assert dict(gate.cors(headers))["Access-Control-Allow-Origin"] == BAD


def test_a_page_may_read_only_answers_meant_for_it() -> None:
    cors = dict(Gate(origins=[GOOD]).cors({"origin": GOOD}))
    assert cors == {"Access-Control-Allow-Origin": GOOD, "Vary": "Origin"}


# On a server


def ask(
    address: str, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, found, answer.read()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def guarded(
    start: Callable[..., Any], bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server with keys and one page that may ask."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n{OTHER}\n")
    return start(bundle, "--api-keys", keys, "--cors-origin", GOOD)


CLOSED = [
    ("GET", "/v2"),
    ("GET", "/v2/models/letters"),
    ("GET", "/v2/models/letters/versions/1"),
    ("GET", "/v2/models/letters/ready"),
    ("GET", "/v2/models/letters/config"),
    ("GET", "/v2/models/letters/stats"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/no-such-model"),
    ("GET", "/models"),
    ("GET", "/metrics"),
    ("HEAD", "/metrics"),
    ("POST", "/v2/models/letters/infer"),
    ("POST", "/v2/models/letters/versions/1/infer"),
    ("POST", "/v2/models/no-such-model/infer"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/letters/unload"),
    ("POST", "/v2/repository/models/letters/load"),
    ("POST", "/predict"),
]


@pytest.mark.parametrize("method, path", CLOSED)
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": f"Bearer {KEY}x"}, {"X-API-Key": "wrong"}]
)
def test_without_a_key_is_401(
    guarded: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    status, found, body = ask(guarded.address, method, path, headers, b"{}" * (method == "POST"))
    assert (status, found["www-authenticate"]) == (401, "Bearer")
    if method != "HEAD":
        assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("headers", [{"Authorization": f"Bearer {KEY}"}, {"X-API-Key": OTHER}])
def test_with_a_key_is_200(guarded: Any, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v2/models/letters"), ("POST", "/v2/repository/index")):
        assert ask(guarded.address, method, path, headers)[0] == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"]
)
def test_some_paths_are_for_everybody(guarded: Any, path: str) -> None:
    assert ask(guarded.address, "GET", path)[0] == 200


@pytest.mark.parametrize(
    "path",
    ["//metrics", "/./metrics", "/%6detrics", "/docs/../metrics", "/v2/health/../models/letters",
     "/metrics/", "/metrics?", "/metrics#", "/METRICS", "/metrics;/docs", "/v2/health/live/../.."],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_round_the_keys(guarded: Any, path: str) -> None:
    assert ask(guarded.address, "GET", path)[0] in (400, 401, 404)


def test_a_body_is_not_read_for_one_without_a_key(guarded: Any) -> None:
    with socket.create_connection(guarded.address.split(":"), 20) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_an_allowed_page_is_answered(guarded: Any) -> None:
    headers = {"Origin": GOOD, "X-API-Key": KEY}
    status, found, _ = ask(guarded.address, "POST", "/v2/repository/index", headers)
    assert (status, found["access-control-allow-origin"], found["vary"]) == (200, GOOD, "Origin")
    assert "access-control-allow-credentials" not in found


def test_an_allowed_page_can_read_errors_too(guarded: Any) -> None:
    """Otherwise it could not tell why."""
    headers = {"Origin": GOOD, "X-API-Key": KEY}
    for path, expected in (("/v2/models/letters/infer", 400), ("/nothing", 404)):
        status, found, _ = ask(guarded.address, "POST", path, headers, b"{")
        assert (status, found.get("access-control-allow-origin")) == (expected, GOOD)
    status, found, _ = ask(guarded.address, "POST", "/predict", {"Origin": GOOD}, b"x")
    assert (status, found.get("access-control-allow-origin")) == (401, GOOD)


def test_an_allowed_page_may_ask_whether_it_may(guarded: Any) -> None:
    """A browser sends no key with this question."""
    status, found, body = ask(
        guarded.address,
        "OPTIONS",
        "/predict",
        {"Origin": GOOD, "Access-Control-Request-Method": "POST"},
    )
    assert (status, body) == (204, b"")
    assert found["access-control-allow-origin"] == GOOD
    assert "POST" in found["access-control-allow-methods"]
    for name in ("Authorization", "Content-Type", "X-API-Key", "Inference-Header-Content-Length"):
        assert name in found["access-control-allow-headers"]


def test_another_page_is_told_nothing(guarded: Any) -> None:
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": BAD, "X-API-Key": KEY}
        _, found, _ = ask(guarded.address, method, "/v2", headers)
        assert not found.keys() & set(ANSWER_HEADERS)
    status, found, body = ask(
        guarded.address, "POST", "/predict", {"Origin": BAD, "X-API-Key": KEY}, b"x"
    )
    assert status == 403
    assert not found.keys() & set(ANSWER_HEADERS)
    assert "--cors-origin" in json.loads(body)["error"]


def test_by_default_no_other_page_may_ask(server: Any) -> None:
    for origin, expected in ((f"http://{server.address}", 200), (BAD, 403), ("null", 403)):
        status, found, _ = ask(
            server.address, "POST", "/v2/repository/index", {"Origin": origin}, b"{}"
        )
        assert status == expected, origin
        assert not found.keys() & set(ANSWER_HEADERS)


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that nobody signed, and its key."""
    openssl = shutil.which("openssl")
    if not openssl:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-days", "2", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module")
def encrypted(start: Callable[..., Any], bundle: Path, certificate: tuple[Path, Path]) -> Any:
    cert, key = certificate
    return start(
        bundle, "--tls-cert", cert, "--tls-key", key, "--max-body", "1MB", "--head-timeout", "1"
    )


@pytest.fixture
def secure(encrypted: Any, certificate: tuple[Path, Path]) -> Any:
    """A connection that trusts the certificate."""
    context = ssl.create_default_context(cafile=certificate[0])
    host, port = encrypted.address.split(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    yield connection
    connection.close()


def test_tls_is_spoken(encrypted: Any, secure: http.client.HTTPSConnection) -> None:
    assert encrypted.url.startswith("https://")
    for _ in range(2):
        secure.request("GET", "/v2/models/letters")
        answer = secure.getresponse()
        assert (answer.status, json.loads(answer.read())["name"]) == (200, "letters")
    assert secure.sock.version() in ("TLSv1.2", "TLSv1.3")


def test_a_refusal_arrives_over_tls(secure: http.client.HTTPSConnection) -> None:
    secure.request("POST", "/predict", bytes(3_000_000))
    answer = secure.getresponse()
    assert answer.status == 413
    answer.read()


def test_a_page_of_the_server_itself_may_ask_over_tls(
    encrypted: Any, secure: http.client.HTTPSConnection
) -> None:
    secure.request("POST", "/v2/repository/index", b"{}", {"Origin": encrypted.url})
    assert secure.getresponse().status == 200


def test_old_tls_is_not_spoken(encrypted: Any, certificate: tuple[Path, Path]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate[0])
    with pytest.warns(DeprecationWarning):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(encrypted.address.split(":"), 20) as client,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(client, server_hostname="127.0.0.1")


@pytest.mark.parametrize("hello", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x00" * 999])
def test_what_is_no_tls_is_closed(
    encrypted: Any, secure: http.client.HTTPSConnection, hello: bytes
) -> None:
    with socket.create_connection(encrypted.address.split(":"), 20) as client:
        client.sendall(hello)
        try:
            received = client.recv(1000)
        except ConnectionError:
            received = b""
    assert not received.startswith(b"HTTP")
    secure.request("GET", "/v2/health/live")
    assert secure.getresponse().status == 200


def test_unusable_certificates_are_refused_at_start(
    start: Callable[..., Any], bundle: Path, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    cases = [
        (("--tls-cert", broken, "--tls-key", key), "no usable certificate and key"),
        (("--tls-cert", cert), "no usable certificate and key"),
        (("--tls-cert", tmp_path / "none.pem"), "no usable certificate and key"),
        (("--tls-key", key), "give --tls-cert too"),
    ]
    servers = [start(bundle, *options, wait=False) for options, _ in cases]
    for server, (_, reason) in zip(servers, cases, strict=True):
        assert server.process.wait(60) == 2
        server.stop()
        assert reason in server.lines[-1]
        assert not any("Traceback" in line for line in server.lines)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("127.0.0.1:9", True),
        ("[::1]:8000", True),
        ("photos.example", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
    ],
)
def test_a_page_cannot_give_this_machine_a_name(host: str, allowed: bool) -> None:
    gate = Gate(hosts=["127.0.0.1", "photos.example"])
    if allowed:
        gate.check_host({"host": host})
        return
    with pytest.raises(HttpError) as caught:
        gate.check_host({"host": host})
    assert caught.value.status == 403
    Gate().check_host({"host": host})  # what others reach has any name


def test_names_are_asked_for_on_loopback(start: Callable[..., Any], bundle: Path) -> None:
    server = start(bundle)
    for host, status in (("localhost", 200), ("evil.example", 403)):
        connection = http.client.HTTPConnection(server.address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/v2", headers={"Host": host})
            assert connection.getresponse().status == status


def test_the_description_names_no_model_to_who_has_no_key(
    start: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    for options, named in (([], True), (["--api-keys", keys], False)):
        server = start(f"secret-name={bundle}", *options)
        connection = http.client.HTTPConnection(server.address, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/openapi.json")
            assert (b"secret-name" in connection.getresponse().read()) == named
