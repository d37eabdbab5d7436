"""Bundles behind HTTP: `python -m serve.http model.onnx`. Needs the extra `serve`."""
