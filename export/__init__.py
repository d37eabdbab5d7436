"""A Keras model as SavedModel and as ONNX bundle, and the proof that both answer as it does."""
