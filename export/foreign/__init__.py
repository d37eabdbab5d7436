"""Keras models that were trained elsewhere: what they take and give, and whether it fits."""
