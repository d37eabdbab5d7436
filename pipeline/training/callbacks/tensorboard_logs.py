"""TensorBoard's files."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import NDArray

from pipeline.training.callbacks.stateful import Figures, Stateful
from serve.atomic import remove


class TensorBoardLogs(Stateful):
    """Loss, accuracy and learning rate by epoch, for `tensorboard --logdir`.

    A training that goes on cuts its files off where they were, so that no epoch is in them twice.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_train_begin(self, logs: Figures | None = None) -> None:
        self._writers = {}

    def on_epoch_end(self, epoch: int, logs: Figures | None = None) -> None:
        try:
            self._write(epoch, logs or {})
        except tf.errors.OpError as error:
            raise OSError(f"{self._folder}: {error.message}") from error

    def on_train_end(self, logs: Figures | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def state(self) -> Any:
        return {str(file.relative_to(self._folder)): file.stat().st_size for file in self._files()}

    def restore(self, state: Any, arrays: list[NDArray[Any]]) -> None:
        for file in self._files():
            size = state.get(str(file.relative_to(self._folder)))
            if size is None:
                remove(file)
            elif file.stat().st_size > size:
                with open(file, "r+b") as stream:
                    stream.truncate(size)

    def _files(self) -> list[Path]:
        return [file for file in sorted(self._folder.rglob("*")) if file.is_file()]

    def _write(self, epoch: int, figures: Figures) -> None:
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        for split, prefix, more in (
            ("train", "", {"learning_rate": rate}),
            ("validation", "val_", {}),
        ):
            if split not in self._writers:
                self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
            with self._writers[split].as_default(step=epoch + 1):
                for name in ("loss", "accuracy"):
                    if prefix + name in figures:
                        tf.summary.scalar(name, figures[prefix + name])
                for name, value in more.items():
                    tf.summary.scalar(name, value)
            self._writers[split].flush()
