"""Search spaces that come with the package, for `python -m pipeline.sweep NAME`."""
