"""What is known of the networks of keras.applications without importing Keras, which takes seconds.

A command asks before hours of other work. The names, the smallest images and where the weights
are fetched from are read in the source text of the installed Keras.
"""

import ast
import difflib
import importlib.util
import os
import re
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

import h5py

from models.options import PretrainedOptions

SECONDS = 5
"""How long to wait for the server of the weights."""

SIZED = {"MobileNet": (128, 160, 192, 224), "MobileNetV2": (96, 128, 160, 192, 224)}
"""Networks with other weights for some sides of square images; for all others, those for 224."""


@cache
def names() -> dict[str, str]:
    """Every network by its name, and the module that it is defined in."""
    tree = ast.parse((_keras() / "applications" / "__init__.py").read_text("utf-8"))
    return {
        alias.name: str(node.module).rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("keras.src.")
        for alias in node.names
    }


def check_name(name: str) -> None:
    """Raises ValueError: there is no such network."""
    if name in names():
        return
    by_lower_case = {each.lower(): each for each in names()}
    nearest = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    hint = f"did you mean {by_lower_case[nearest[0]]}?" if nearest else "such as MobileNetV2"
    raise ValueError(
        f"model pretrained: expected a network of keras.applications, got backbone {name!r}; {hint}"
    )


def check_size(name: str, height: int, width: int) -> None:
    """Raises ValueError: images of this size are too small for the network."""
    found = re.search(r"min_size=(\d+)", _source(name))
    if found and min(height, width) < int(found[1]):
        raise ValueError(
            f"model pretrained: {name} for images of {height}x{width}: Input size must be at least "
            f"{found[1]}x{found[1]}; set --prepare.image_size or another backbone"
        )


def check_weights_file(path: str) -> None:
    """Raises ValueError: it is no file of weights."""
    if not path.endswith(".weights.h5"):
        raise ValueError(
            f"model pretrained: expected weights to be imagenet, none or a .weights.h5 file as "
            f"Keras's save_weights writes it, got {path}"
        )
    if not Path(path).is_file():
        raise ValueError(f"model pretrained: {path}: no such weights file")


def check_weights_can_be_had(options: PretrainedOptions, size: tuple[int, int] | None) -> None:
    """Look at a weights file, or for ImageNet's weights in Keras's cache, else for their server.

    Raises:
        ValueError: there is no such file, or none can be fetched from here.
    """
    if options.weights == "none":
        return
    if options.weights != "imagenet":
        check_weights_file(options.weights)
        if not h5py.is_hdf5(options.weights):
            raise ValueError(
                f"model pretrained: {options.weights}: no weights of {options.backbone}: not an "
                "HDF5 file"
            )
    elif not any(_is_of(file.name, options.backbone, size) for file in _cached()):
        _reach(options.backbone)


def _reach(name: str) -> None:
    found = re.search(r"https://storage\.googleapis\.com/", _source(name))
    if found is None:
        return
    request = urllib.request.Request(found[0], method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise ValueError(
            f"model pretrained: no ImageNet weights of {name} in {_home() / 'models'}, and "
            f"{found[0]} cannot be reached ({error}); run it once with a network, put that file "
            "into ~/.keras/models, or give --model.weights a .weights.h5 file, or none"
        ) from error


def _is_of(file: str, name: str, size: tuple[int, int] | None) -> bool:
    """Whether a file in the cache has the weights of this network without its last layer."""
    plain = re.sub(r"[^a-z0-9]", "", file.lower()).removeprefix("weights")
    own = name.lower()
    rest = plain.removeprefix(own)
    if not plain.startswith(own) or rest.startswith(("v2", "v3")) or "notop" not in rest:
        return False
    if name not in SIZED or size is None:
        return True
    side = size[0] if size[0] == size[1] and size[0] in SIZED[name] else 224
    return f"_{side}_" in file


def _cached() -> list[Path]:
    folder = _home() / "models"
    return list(folder.glob("*.h5")) if folder.is_dir() else []


def _home() -> Path:
    """Where Keras keeps files, by its own rule."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(home)
    user = Path("~").expanduser()
    return (user if os.access(user, os.W_OK) else Path("/tmp")) / ".keras"


def _keras() -> Path:
    spec = importlib.util.find_spec("keras")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def _source(name: str) -> str:
    path = _keras() / "src" / "applications" / f"{names()[name]}.py"
    text = path.read_text("utf-8")
    shared = {"resnet_v2": "resnet.py"}.get(names()[name])
    return text + (path.with_name(shared).read_text("utf-8") if shared else "")
