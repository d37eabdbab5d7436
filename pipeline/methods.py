"""Every method of training by its name in the config, with its source, as a table.

python -m pipeline.methods                  # what docs/methods.md holds
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic.fields import FieldInfo

from models.options import (
    INITIALIZERS,
    CnnOptions,
    Initializer,
    KernelOptions,
    ModelOptions,
    Options,
)
from pipeline.options.augment import AugmentOptions
from pipeline.options.losses import CrossEntropyOptions, LossOptions
from pipeline.options.optimizers import CLIPS, AdamwOptions, CommonOptions, OptimizerOptions
from pipeline.options.schedules import ScheduleOptions
from pipeline.options.training import ContrastiveOptions, TrainOptions
from serve.command import run_command

SOURCE = re.compile(r" ?\(([^()]*\b(?:19|20)\d\d[^()]*)\)")
OWN = "Lockstep"
"""Source of what was made here."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: as the config has it.
        text: what it is.
        source: who described it first, and when.
        options: names of its own options.
    """

    name: str
    text: str
    source: str
    options: Sequence[str] = ()


def methods() -> dict[str, list[Method]]:
    """All methods, by the kind of method."""
    return {
        "Optimizers": list(_forms("train.optimizer", OptimizerOptions, CommonOptions)),
        "Clipping of gradients": [_field("train.optimizer", CommonOptions, name) for name in CLIPS],
        "Learning-rate schedules": list(_forms("train.schedule", ScheduleOptions, Options)),
        "Losses": [
            *_forms("train.loss", LossOptions, Options),
            _form("train.pretraining", ContrastiveOptions, Options),
        ],
        "Initializers": [
            Method(f"model.initializer: {name}", *_split(INITIALIZERS[name]))
            for name in get_args(Initializer)
        ],
        "Regularizers": [
            _field("model", CnnOptions, "l1"),
            _field("model", CnnOptions, "l2"),
            _field("model", CnnOptions, "dropout"),
            _field("model", CnnOptions, "spatial_dropout"),
            _field("model", CnnOptions, "batch_normalization"),
            *_shared_by_models("stochastic_depth"),
            _field("train.optimizer", AdamwOptions, "weight_decay"),
            _field("train.loss", CrossEntropyOptions, "label_smoothing"),
            _field("train", TrainOptions, "weight_average"),
            _field("train", TrainOptions, "early_stopping"),
        ],
        "Augmentation": [
            _field("augment", AugmentOptions, name) for name in AugmentOptions.model_fields
        ],
        "Models": [
            *_forms("model", ModelOptions, KernelOptions),
            _field("model", CnnOptions, "stem"),
        ],
    }


def markdown() -> str:
    """The document."""
    lines = [
        "# Methods",
        "",
        "Every method of training by its name in the config, and where it comes from.",
        "`python -m pipeline.run --help` lists all options with their defaults.",
        "",
        "This table is made by `python -m pipeline.methods > docs/methods.md`.",
    ]
    for title, rows in methods().items():
        lines += ["", f"## {title}", "", "| in the config | what it is | source |", "|---|---|---|"]
        for row in rows:
            options = f" Options: {', '.join(f'`{name}`' for name in row.options)}."
            text = row.text + (options if row.options else "")
            lines.append(f"| `{row.name}` | {text} | {row.source} |")
    return "\n".join(lines) + "\n"


def _forms(key: str, union: object, common: type[Options]) -> Iterator[Method]:
    for form in get_args(union):
        yield _form(key, form, common)


def _form(key: str, form: type[Options], common: type[Options]) -> Method:
    """One form of a choice; options that all forms have are not repeated."""
    own = [name for name in form.model_fields if name not in ("name", *common.model_fields)]
    name = form.model_fields["name"].default
    return Method(f"{key}.name: {name}", *_split(form.__doc__ or ""), own)


def _field(key: str, options: type[Options], name: str) -> Method:
    field: FieldInfo = options.model_fields[name]
    return Method(f"{key}.{name}", *_split(field.description or ""))


def _shared_by_models(name: str) -> Iterator[Method]:
    for form in get_args(ModelOptions):
        if name in form.model_fields:
            yield _field("model", form, name)
            return


def _split(text: str) -> tuple[str, str]:
    """Text without its source, and the source."""
    text = " ".join(text.split())
    found = SOURCE.search(text)
    return (SOURCE.sub("", text, count=1), found[1]) if found else (text, OWN)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    argparse.ArgumentParser(
        prog="python -m pipeline.methods", description="Print every method of training as a table."
    ).parse_args(arguments)
    print(markdown(), end="")
    return 0


if __name__ == "__main__":
    run_command(main)
