"""Config, data, training, evaluation and report, driven by `python -m pipeline.run`."""

import export  # noqa: F401  # asks for the extra `train`, and keeps the user's settings from Keras
