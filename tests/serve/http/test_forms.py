"""Forms with files: what browsers and scripts send, and what is damaged or hostile."""

import random
import time
import tracemalloc
from collections import Counter
from email.message import EmailMessage
from email.policy import HTTP

import pytest

from serve.http.forms import read_form
from serve.http.messages import HttpError

BOUNDARY = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
HOSTILE_BYTES = 4 * 2**20


def part(content: bytes, name: str = "shoe.jpg", *, headers: str = "") -> bytes:
    """One file, as Chromium sends it."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
    head = f"{disposition}Content-Type: image/jpeg\r\n{headers}\r\n"
    return head.encode() + content


def form(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    line = f"--{boundary}".encode()
    body = b"".join(b"%b\r\n%b\r\n" % (line, content) for content in parts)
    return b"%b%b--\r\n" % (body, line)


def read(body: bytes, *, boundary: str = BOUNDARY, most: int = 100) -> list[tuple[str, bytes]]:
    return read_form(body, f"multipart/form-data; boundary={boundary}", most)


def refusal(body: bytes, content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> str:
    with pytest.raises(HttpError) as caught:
        read_form(body, content_type, 3)
    assert caught.value.status == 400
    assert 0 < len(str(caught.value)) < 300
    return str(caught.value)


def test_one_file_is_read() -> None:
    assert read(form(part(b"\xff\xd8pixels"))) == [("shoe.jpg", b"\xff\xd8pixels")]


def test_many_files_are_read_in_order() -> None:
    contents = [bytes([number]) * number for number in range(100)]
    parts = [part(content, f"{number}.png") for number, content in enumerate(contents)]
    assert read(form(*parts)) == [(f"{n}.png", content) for n, content in enumerate(contents)]


CONTENTS = (
    b"",
    b"\r\n",
    b"\r\n\r\n",
    b"--",
    b"\r\n--",
    f"\r\n--{BOUNDARY}"[:-1].encode(),
    f"--{BOUNDARY}--".encode(),
    f"\r\n-{BOUNDARY}".encode(),
    f"\n--{BOUNDARY}\n".encode(),
    bytes(range(256)) * 300,
    b"\r" * 1000,
    b"Content-Disposition: form-data\r\n\r\n",
)


@pytest.mark.parametrize("second", [0, 4, 9])
@pytest.mark.parametrize("first", range(len(CONTENTS)))
def test_contents_arrive_byte_for_byte(first: int, second: int) -> None:
    contents = [CONTENTS[first], CONTENTS[second]]
    assert [content for _, content in read(form(*map(part, contents)))] == contents


def test_random_contents_arrive_byte_for_byte() -> None:
    """Made of the pieces that a boundary is made of."""
    chance = random.Random(0)
    pieces = [b"\r", b"\n", b"-", b"--", b"\r\n--", b"b", b"bo", b"oun", b"d", b"\r\n--boun", b"x"]
    for _ in range(500):
        contents = [
            b"".join(chance.choice(pieces) for _ in range(chance.randrange(30))) for _ in range(3)
        ]
        if any(b"\r\n--bound" in content for content in contents):
            continue
        body = form(*map(part, contents), boundary="bound")
        assert [content for _, content in read(body, boundary="bound")] == contents


def test_a_form_written_by_the_standard_library_is_read() -> None:
    message = EmailMessage(policy=HTTP)
    message["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
    for name in ("a.png", "b c.png"):
        attached = EmailMessage(policy=HTTP)
        attached.set_content(name.encode() * 9, "image", "png", cte="binary")
        del attached["Content-Disposition"]
        attached["Content-Disposition"] = f'form-data; name="images"; filename="{name}"'
        message.attach(attached)
    head, _, body = bytes(message).partition(b"\r\n\r\n")
    content_type = head.decode().partition(": ")[2].replace("\r\n", "")
    expected = [("a.png", b"a.png" * 9), ("b c.png", b"b c.png" * 9)]
    assert read_form(body, content_type, 2) == expected


@pytest.mark.parametrize(
    "name",
    ["Schuh größe 42.jpg", "靴.png", "a;b=c.png", "a'b", "", "a%22b", "../../etc/passwd", ".", " "],
)
def test_names_of_files_are_only_names(name: str) -> None:
    assert read(form(part(b"x", name))) == [(name, b"x")]


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"sch\xf6n.png"])
def test_names_that_are_no_utf8_are_replaced_in_part(name: bytes) -> None:
    body = form(part(b"x", "NAME").replace(b"NAME", name))
    ((found, content),) = read(body)
    assert content == b"x"
    assert found.encode()
    assert "�" in found or "ö" in found


def test_other_headers_and_preambles_are_passed_over() -> None:
    parts = [part(b"x", headers="Content-Transfer-Encoding: binary\r\nX-Any: thing\r\n")]
    lower = b'content-disposition:form-data;filename="a";name=f\r\n\r\ny'
    assert read(form(*parts, lower)) == [("shoe.jpg", b"x"), ("a", b"y")]
    assert read(b"\r\n" + form(*parts)) == [("shoe.jpg", b"x")]


@pytest.mark.parametrize(
    "content_type",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data;BOUNDARY={BOUNDARY}",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
    ],
)
def test_the_boundary_may_be_written_in_other_ways(content_type: str) -> None:
    assert read_form(form(part(b"x")), content_type, 1) == [("shoe.jpg", b"x")]


@pytest.mark.parametrize("rest", ["", ";", "; boundary", "; boundary=", '; boundary=""'])
def test_a_form_has_a_boundary(rest: str) -> None:
    assert "expected a boundary" in refusal(form(part(b"x")), f"multipart/form-data{rest}")


def test_a_very_long_boundary_is_refused_or_read() -> None:
    boundary = "b" * 20_000
    try:
        assert read(form(part(b"x"), boundary=boundary), boundary=boundary)
    except HttpError as error:
        assert error.status == 400  # either is right; a crash is not


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"image",
        form(),
        b"--" + BOUNDARY.encode() + b"--",
        form(part(b"x"), boundary="another"),
    ],
)
def test_a_form_without_a_file_is_refused(body: bytes) -> None:
    assert "multipart/form-data" in refusal(body)


def test_every_form_that_is_cut_off_is_refused() -> None:
    body = form(part(b"one"), part(b"two")).removesuffix(b"\r\n")
    assert len(read(body)) == 2
    for length in range(len(body)):
        refusal(body[:length])


def test_a_field_that_is_no_file_is_named() -> None:
    field = b'Content-Disposition: form-data; name="top"\r\n\r\n5'
    assert "expected files only: field 'top' is none" in refusal(form(part(b"x"), field))
    assert "expected files only" in refusal(form(b"Content-Type: image/png\r\n\r\nx"))
    assert "expected files only" in refusal(form(b"Content-Disposition: attachment\r\n\r\nx"))
    assert "expected files only" in refusal(form(b"\r\nx"))


def test_files_are_limited() -> None:
    assert len(read(form(*[part(b"x")] * 3), most=3)) == 3
    assert "expected at most 3 images" in refusal(form(*[part(b"x")] * 4))


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Disposition form-data\r\n\r\n",
        b": form-data\r\n\r\n",
        b"Content Disposition: form-data\r\n\r\n",
        b"Content-Disposition: form-data\r\r\n\n",
        b"A: " + b"b" * 100_000 + b"\r\n\r\n",
        b"A: b\r\n" * 10_000 + b"\r\n",
        b"\0: b\r\n\r\n",
    ],
)
def test_damaged_headers_are_refused(head: bytes) -> None:
    refusal(form(part(b"x"), head + b"y"))


def test_damaged_forms_are_refused_or_whole() -> None:
    sound = form(part(b"one"), part(b"\r\n--two"))
    chance = random.Random(1)
    outcomes: Counter[str] = Counter()
    for _ in range(4000):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 3)):
            at, size = chance.randrange(len(body)), chance.choice((1, 1, 2, 5, 40))
            match chance.randrange(4):
                case 0:
                    body[at] ^= 1 << chance.randrange(8)
                case 1:
                    del body[at : at + size]
                case 2:
                    body[at:at] = chance.randbytes(size)
                case _:
                    body[at:at] = body[at : at + size]
        try:
            files = read(bytes(body))
        except HttpError as error:
            outcomes["refused"] += 1
            assert error.status == 400
            assert 0 < len(str(error)) < 300
        else:
            outcomes["read"] += 1
            assert 1 <= len(files) <= 4
            assert sum(len(content) for _, content in files) <= len(body)
    assert min(outcomes.values()) > 400, outcomes


def fill(start: bytes, repeated: bytes, end: bytes = b"") -> bytes:
    return start + repeated * (HOSTILE_BYTES // len(repeated)) + end


OPEN = f"--{BOUNDARY}\r\n".encode()
CLOSE = f"\r\n--{BOUNDARY}--\r\n".encode()
ALMOST = f"\r\n--{BOUNDARY}"[:-1].encode()


@pytest.mark.parametrize(
    "body",
    [
        fill(OPEN + part(b""), b"\r", CLOSE),
        fill(OPEN + part(b""), b"\r\n", CLOSE),
        fill(OPEN + part(b""), b"\r\n-", CLOSE),
        fill(OPEN + part(b""), ALMOST, CLOSE),
        fill(OPEN + part(b""), ALMOST[:12], CLOSE),
        fill(b"", b"\r\n"),
        fill(b"", b"-"),
        fill(b"", OPEN),
        fill(OPEN, b"a"),
        fill(OPEN, b"a: b\r\n"),
        fill(OPEN + b"Content-Disposition: form-data", b"; a=b"),
        fill(OPEN + b'Content-Disposition: form-data; filename="', b'\\"'),
        fill(CLOSE, b"\r\n"),
        fill(form(part(b"x")), b"\r\n--"),
        form(*[part(b"")] * 20_000),
    ],
    ids=lambda body: repr(bytes(body[len(body) // 2 :][:12])),
)
def test_hostile_forms_cost_little(body: bytes) -> None:
    tracemalloc.start()
    started = time.process_time()
    try:
        try:
            read(body)
        except HttpError as error:
            assert error.status == 400  # some of them are sound
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seconds < 4
    assert peak < 8 * HOSTILE_BYTES
