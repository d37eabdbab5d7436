"""The OpenAPI description of every path."""

from typing import Any

import serve


def document() -> dict[str, Any]:
    info = {"title": "Lockstep", "version": serve.__version__}
    return {"openapi": "3.1.0", "info": info, "paths": {}}
