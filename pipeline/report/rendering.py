"""Pages for people from the templates beside this file: one frame, one style."""

import base64
import shlex
from typing import Any

import jinja2

from serve.images import encode_png


def render(template: str, **values: Any) -> str:
    """The page that a template makes of values, all of which are escaped.

    Filters: `percent` writes a share, `shell` quotes a path, `png` gives uint8 pixels `[height,
    width, channels]` as the address of an image.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    environment.filters["shell"] = lambda path: shlex.quote(str(path))
    environment.filters["png"] = lambda pixels: (
        "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    )
    return environment.get_template(template).render(**values)
