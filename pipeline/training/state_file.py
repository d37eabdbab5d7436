"""The state of a training as one file: arrays and a JSON document under one SHA-256.

A file is a zip archive of `.npy` members, which `numpy.load` opens, with the document as the member
`state.json`. Its last 64 bytes, the comment of the archive, are the digest of all bytes before
them, so that a file that was cut off or altered anywhere is known for it. Nothing is pickled.
"""

import errno
import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.atomic import atomic_path, remove, sync
from serve.command import LockstepError

DOCUMENT = "state.json"
DIGEST_BYTES = 64
CHUNK = 2**20


class StateError(LockstepError):
    """A state that is damaged, or that belongs to another training."""


@dataclass(frozen=True)
class State:
    """What a training needs to go on as if it had never stopped.

    Attributes:
        arrays: by name; what must come back bit by bit.
        document: what JSON can hold.
    """

    arrays: dict[str, NDArray[Any]]
    document: dict[str, Any]


class StateFiles:
    """The last state and the one before it, in one folder.

    Attributes:
        newest, previous: their paths.
    """

    def __init__(self, folder: Path) -> None:
        self.newest = folder / "state.npz"
        self.previous = folder / "previous.npz"

    def write(self, state: State) -> None:
        """Write a state, read it back, and only then put it in the place of the newest one.

        Raises:
            OSError: the disk is full, or keeps other bytes than it was given. Both files stay.
        """
        with atomic_path(self.newest) as temporary:
            temporary.write_bytes(_packed(state))
            sync(temporary)
            if not _is_whole(temporary):
                raise OSError(errno.EIO, "the disk did not keep what was written")
            if self.newest.exists():
                self.newest.replace(self.previous)

    def read(self) -> tuple[State | None, list[str]]:
        """The newest state that is whole, if there is any, and what is wrong with a newer one.

        Raises:
            StateError: there are states, and none is whole.
        """
        problems: list[str] = []
        for path in (self.newest, self.previous):
            if not path.exists():
                continue
            try:
                return read_state(path), problems
            except StateError as error:
                problems.append(str(error))
        if problems:
            raise StateError("; ".join(problems))
        return None, []

    def forget(self) -> None:
        """Remove both."""
        for path in (self.newest, self.previous):
            remove(path)


def read_state(path: Path) -> State:
    """Raises StateError: the file is damaged."""
    if not _is_whole(path):
        raise StateError(f"{path}: damaged: it is not what was written")
    try:
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.read(DOCUMENT))
            arrays = {}
            for name in archive.namelist():
                if name != DOCUMENT:
                    with archive.open(name) as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                    arrays[name.removesuffix(".npy")] = array
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise StateError(f"{path}: expected the state of a training: {error}") from error
    return State(arrays, document)


def _packed(state: State) -> memoryview:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(DOCUMENT, json.dumps(state.document, indent=1))
        for name, array in state.arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = b"0" * DIGEST_BYTES
    content = buffer.getbuffer()
    digest = hashlib.sha256(content[:-DIGEST_BYTES]).hexdigest()
    content[-DIGEST_BYTES:] = digest.encode()
    return content


def _is_whole(path: Path) -> bool:
    """Whether its bytes are those that its digest is of."""
    digest = hashlib.sha256()
    left = path.stat().st_size - DIGEST_BYTES
    with open(path, "rb") as stream:
        while left > 0 and (chunk := stream.read(min(CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return not left and stream.read() == digest.hexdigest().encode()
