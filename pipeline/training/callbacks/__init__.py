"""Keras callbacks of our own, one to a file."""

from pipeline.training.callbacks.best import Best
from pipeline.training.callbacks.history_file import HistoryFile
from pipeline.training.callbacks.learning_rate import AdaptiveCosine, LearningRate, Plateau
from pipeline.training.callbacks.stateful import Figures, Stateful
from pipeline.training.callbacks.stop_rules import StopRules
from pipeline.training.callbacks.tensorboard_logs import TensorBoardLogs
from pipeline.training.callbacks.weight_average import WeightAverage

__all__ = [
    "AdaptiveCosine",
    "Best",
    "Figures",
    "HistoryFile",
    "LearningRate",
    "Plateau",
    "Stateful",
    "StopRules",
    "TensorBoardLogs",
    "WeightAverage",
]
