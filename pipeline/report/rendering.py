"""Pages for people from the templates beside this file: one frame, one style, self-contained."""

import base64
import shlex
from typing import Any

import jinja2

from serve.images import encode_png
from serve.rounding import percent, points, significant


def render(template: str, **values: Any) -> str:
    """The page that a template makes of values, all of which are escaped.

    Filters: `percent` writes a share; `percent_of(images)` one with the digits that so many images
    know, `points_of(images)` a difference of two; `significant` a number of three digits; `shell`
    quotes a path; `png` gives uint8 pixels `[height, width, channels]` as the address of an image.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pipeline.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.2f} %"
    environment.filters["percent_of"] = percent
    environment.filters["points_of"] = points
    environment.filters["significant"] = significant
    environment.filters["shell"] = lambda path: shlex.quote(str(path))
    environment.filters["png"] = lambda pixels: (
        "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode()
    )
    return environment.get_template(template).render(**values)
