"""Bodies that are packed with gzip or deflate, and answers that may be."""

import gzip
import zlib

from serve.http.messages import HttpError, Request, Response

ENCODINGS = {"": False, "identity": False, "gzip": True, "x-gzip": True, "deflate": True}
"""What a body may be packed with, and whether there is anything to unpack."""

DEFLATE_RATIO = 1032
"""No deflated body becomes more times its size (zlib.net/zlib_tech.html)."""

WORTH_PACKING = range(2**10, 2**20)
"""Bytes of an answer that is packed if the client takes gzip: a larger one would take too long."""


def is_packed(request: Request) -> bool:
    """Whether the body is packed. Raises HttpError: 415; in a way that is not known."""
    name = request.headers.get("content-encoding", "").strip().lower()
    if name not in ENCODINGS:
        raise HttpError(
            415,
            f"expected Content-Encoding gzip, deflate or none, got {name!r:.40}",
            ("Accept-Encoding", "gzip, deflate"),
        )
    return ENCODINGS[name]


def unpack(body: bytes, most: int) -> bytes:
    """Inflate gzip or zlib data.

    Raises:
        HttpError: 400; it is damaged, or cut off. 413; it becomes more than `most` bytes.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # either header
    try:
        content = inflater.decompress(body, most + 1)
    except zlib.error as error:
        raise HttpError(400, f"the packed body is damaged: {error}") from None
    if len(content) > most:
        raise HttpError(413, f"expected a body of at most {most} bytes, unpacked")
    if not inflater.eof or inflater.unused_data:
        raise HttpError(400, "the packed body is cut off, or has something behind it")
    return content


def packed(request: Request, response: Response) -> Response:
    """The answer, with gzip if its client takes that and it is worth it."""
    size_fits = len(response.body) in WORTH_PACKING
    if size_fits and takes_gzip(request.headers.get("accept-encoding", "")):
        response.body = gzip.compress(response.body, 1)
        response.headers += (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
    return response


def takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is among the encodings, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";")
        if name == "gzip":
            return weight.rstrip("0.") != "q="
    return False
