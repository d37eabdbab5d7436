"""Who may ask: API keys, and which web pages."""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from serve.command import LockstepError
from serve.http.messages import Headers, HttpError

SHORTEST_KEY = 16
OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")


def read_keys(path: Path) -> list[str]:
    """The keys in a file, one a line; empty lines and lines that begin with # are passed over.

    Raises:
        LockstepError: it holds none, or one that could be guessed.
    """
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except UnicodeDecodeError:
        raise LockstepError(f"{path}: expected ASCII text, one key a line") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise LockstepError(f"{path}: expected at least one key, one a line")
    if min(map(len, keys)) < SHORTEST_KEY:
        raise LockstepError(f"{path}: expected keys of at least {SHORTEST_KEY} characters")
    return keys


class Gate:
    """Lets requests through or not.

    Args:
        keys: what a client must know; none lets everyone in.
        origins: web pages of other hosts that may ask, as `https://example.com`; "*" is all.
        hosts: names by which the server may be called besides those of this machine itself; None
            allows all.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        origins: Sequence[str] = (),
        hosts: Sequence[str] | None = None,
    ) -> None:
        self._hosts = None if hosts is None else frozenset((*hosts, *OWN_NAMES))
        self._digests = [_digest(key) for key in keys]
        self._origins = frozenset(origins)

    def check_key(self, headers: Mapping[str, str]) -> None:
        """Raises HttpError: 401; there is no key, or a wrong one."""
        if not self._digests:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        given = _digest(key)
        if not any(hmac.compare_digest(given, digest) for digest in self._digests):
            raise HttpError(
                401,
                "expected an API key, as Authorization: Bearer KEY or X-API-Key: KEY",
                ("WWW-Authenticate", "Bearer"),
            )

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Keep a page from giving this machine a name of its own (DNS rebinding), under which a
        visitor's browser would take the server for the page's.

        Raises:
            HttpError: 403.
        """
        host = headers.get("host", "")
        name = _without_port(host)
        if host and self._hosts is not None and name not in self._hosts:
            raise HttpError(
                403, f"not called {name!r:.80}; if a proxy calls it so, say --allowed-host"
            )

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Keep pages of other hosts from using a visitor's browser to send requests here.

        Raises:
            HttpError: 403.
        """
        origin = headers.get("origin")
        if origin is None or self._allows(origin):
            return
        host = origin.partition("://")[2]
        if not host or host != headers.get("host"):
            raise HttpError(
                403, f"pages of {origin!r:.80} may not ask; allow it with --cors-origin"
            )

    def cors(self, headers: Mapping[str, str]) -> Headers:
        """What the browser must be told, so that an allowed page sees the answer."""
        origin = headers.get("origin", "")
        if not self._allows(origin):
            return ()
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"))

    def preflight(self, headers: Mapping[str, str], methods: str) -> Headers:
        """The same, before the request itself."""
        cors = self.cors(headers)
        if not cors:
            return ()
        return (
            *cors,
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers",
             "Authorization, Content-Type, Inference-Header-Content-Length, X-API-Key"),
            ("Access-Control-Max-Age", "600"),
        )  # fmt: skip

    def _allows(self, origin: str) -> bool:
        return bool(origin) and (origin in self._origins or "*" in self._origins)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


@lru_cache(maxsize=256)
def _without_port(host: str) -> str:
    return re.sub(r":\d*$", "", host).lower()
