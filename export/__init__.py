"""A Keras model as SavedModel and as ONNX bundle, and the proof that both answer as it does."""

from serve.command import require_extra

require_extra("train", "keras")

import models  # noqa: E402, F401  # keeps the user's settings from Keras; needs the extra
