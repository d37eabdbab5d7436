"""The page of a learning-rate range test."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config
from pipeline.recipe import to_yaml
from pipeline.report.plots import range_test_curve
from pipeline.report.rendering import render
from pipeline.training.range_test import DIVERGED, WINDOW, Point, Suggestion
from serve.atomic import write_text


def write_page(
    path: Path,
    name: str,
    config: Config,
    points: Sequence[Point],
    planned: int,
    suggestion: Suggestion | None,
) -> None:
    """Write the curve, the suggestion and the table as one self-contained page.

    Args:
        name: of what was tested.
        planned: steps that there would have been without an early end.
    """
    page = render(
        "range_test.html",
        name=name,
        config=config,
        points=points,
        planned=planned,
        diverged=DIVERGED,
        window=WINDOW,
        suggestion=suggestion,
        curve=range_test_curve(points, suggestion),
        tree=to_yaml(config),
    )
    write_text(path, page)
