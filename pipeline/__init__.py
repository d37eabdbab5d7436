"""Config, data, training, evaluation and report, driven by `python -m pipeline.run`."""
