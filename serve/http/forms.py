"""Files in a form, as browsers and `curl -F` send them (RFC 7578)."""

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve.http.messages import HttpError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


def read_form(body: bytes, content_type: str, most: int) -> list[tuple[str, bytes]]:
    """Name and content of every file.

    Raises:
        HttpError: 400; the form is damaged or cut off, holds no file, more than `most`, or a field
            that is no file.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise HttpError(400, "multipart/form-data: expected a boundary in Content-Type")
    reader = _Reader(most)
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HttpError(400, f"multipart/form-data: malformed: {error}") from None
    if not reader.is_complete:
        raise HttpError(400, "multipart/form-data: cut off: its last boundary is missing")
    if not reader.files:
        raise HttpError(400, "multipart/form-data: expected at least one file")
    return reader.files


class _Reader:
    """Collects what the parser finds."""

    def __init__(self, most: int) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.is_complete = False
        self._most = most
        self._field, self._value = b"", b""
        self._disposition = b""
        self._content: list[bytes] = []

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_content,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        if len(self.files) == self._most:
            raise HttpError(400, f"expected at most {self._most} images in a request")
        self._disposition = b""
        self._content = []

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field, self._value = b"", b""

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _end(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"filename" not in options:
            field = options.get(b"name", b"").decode("utf-8", "replace")
            raise HttpError(400, f"expected files only: field {field!r:.80} is none")
        name = options[b"filename"].decode("utf-8", "replace")
        self.files.append((name, b"".join(self._content)))

    def _complete(self) -> None:
        self.is_complete = True
