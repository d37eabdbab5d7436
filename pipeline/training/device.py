"""What TensorFlow computes on."""

import os
import platform

import tensorflow as tf


def prepare_device(*, deterministic: bool = False) -> str:
    """Use a GPU where there is one, growing its memory as needed; returns the device in words.

    Args:
        deterministic: for the whole process, use only operations that give the same bits every
            time, and refuse those that cannot.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        return f"CPU ({os.cpu_count()} cores, {platform.machine()})"
    names = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus
    ]
    return f"GPU ({', '.join(names)})"
