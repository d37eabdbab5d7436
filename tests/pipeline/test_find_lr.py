"""The learning-rate range test: what it suggests, and what it does to a run that is there."""

import csv
import hashlib
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from export.prepared_data import PreparedData
from export.run_directory import RunDirectory
from export.run_lock import claimed
from pipeline.find_lr import main
from pipeline.recipe import ConfigError, load_recipe, resolve
from pipeline.training.range_test import Point, geometric_rates, measure, suggest
from pipeline.training.trial import Trial
from serve.command import LockstepError
from tests.conftest import RunModule
from tests.pipeline.conftest import MakePhotos

SMALL = (
    *("--model.filters", "[8,8]", "--model.convolutions", "1"),
    *("--train.batch_size", "32", "--steps", "60"),
)


# The rates and the loss


def test_the_rates_are_a_geometric_sequence() -> None:
    rates = geometric_rates(1e-6, 10, 50)
    assert len(rates) == 50
    assert rates[0] == 1e-6
    assert rates[-1] == pytest.approx(10)
    ratios = [after / before for before, after in pairwise(rates)]
    assert ratios == pytest.approx([1e7 ** (1 / 49)] * 49)


def test_the_smoothed_loss_is_an_average_without_bias() -> None:
    """As weights 0.9 ** age, divided by their sum."""
    losses = [3.0, 1.0, 4.0, 1.0, 5.0, 2.0]
    queue = iter(losses)
    points = list(measure(lambda rate: next(queue), geometric_rates(0.1, 1, 6)))
    for number, point in enumerate(points):
        weights = 0.9 ** np.arange(number, -1, -1)
        expected = np.average(losses[: number + 1], weights=weights)
        assert point.smoothed == pytest.approx(expected)
        assert (point.step, point.loss) == (number, losses[number])


def test_a_loss_that_diverges_ends_the_test_with_the_point_where_it_does() -> None:
    queue = iter([1.0, 1.0, 8.0, 90.0, 1.0, 1.0])
    points = list(measure(lambda rate: next(queue), geometric_rates(0.1, 1, 6)))
    assert [point.loss for point in points] == [1.0, 1.0, 8.0, 90.0]
    assert points[2].smoothed < 4 < points[3].smoothed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_test_before_it(value: float) -> None:
    queue = iter([1.0, 1.0, value, 1.0])
    points = list(measure(lambda rate: next(queue), geometric_rates(0.1, 1, 4)))
    assert [point.loss for point in points] == [1.0, 1.0]


# The suggestion


@pytest.mark.parametrize("curvature", [0.5, 10.0, 400.0])
def test_a_quadratic_is_read_rightly(curvature: float) -> None:
    """Batches of curvature / 2 * (w - target) ** 2: gradient descent is stable below a rate of
    2 / curvature, by the closed form, and the error grows at each step above it.
    """
    limit = 2 / curvature
    weight = 10.0
    targets = np.random.default_rng(0)

    def train_step(rate: float) -> float:
        nonlocal weight
        error = weight - targets.normal(0, 0.3)
        weight -= rate * curvature * error
        return curvature / 2 * error**2

    points = list(measure(train_step, geometric_rates(limit / 1e5, limit * 100, 200)))
    assert limit < points[-1].learning_rate < 10 * limit, "it diverges soon"
    suggestion = suggest(points)
    assert suggestion is not None
    assert limit / 100 < suggestion.steepest < limit / 5
    assert suggestion.steepest < suggestion.lowest < 2 * limit
    assert suggestion.tenth == suggestion.lowest / 10


def points_of(losses: list[float]) -> list[Point]:
    rates = geometric_rates(1e-6, 10, len(losses))
    return [
        Point(step, rate, loss, loss)
        for step, (rate, loss) in enumerate(zip(rates, losses, strict=True))
    ]


def test_the_steepest_place_of_a_curve_is_found() -> None:
    """A smooth step down, steepest at 0.01, and a way up from 1 on."""
    positions = np.linspace(-6, 1, 141)
    losses = 2 - np.tanh(2 * (positions + 2)) + 5 * np.maximum(positions, 0)
    suggestion = suggest(points_of(losses.tolist()))
    assert suggestion is not None
    assert suggestion.steepest == pytest.approx(1e-2, rel=0.1)
    assert suggestion.lowest == pytest.approx(1, rel=0.1)


def test_noise_does_not_move_it_far() -> None:
    positions = np.linspace(-6, 1, 141)
    noise = np.random.default_rng(4).normal(0, 0.03, 141)
    losses = 2 - np.tanh(2 * (positions + 2)) + 5 * np.maximum(positions, 0) + noise
    suggestion = suggest(points_of(losses.tolist()))
    assert suggestion is not None
    assert 4e-3 < suggestion.steepest < 2.5e-2


@pytest.mark.parametrize(
    "losses",
    [
        [1.0] * 60,
        np.linspace(1, 3, 60).tolist(),
        [1 + 0.02 * (-1) ** step for step in range(60)],
        [1.0, 2.0],
        [],
    ],
    ids=["flat", "rising", "noise", "two points", "none"],
)
def test_where_the_loss_never_falls_nothing_is_suggested(losses: list[float]) -> None:
    assert suggest(points_of(losses)) is None


# With a real model


def trial(prepared: Path, **more: object) -> Trial:
    small = {
        "model.filters": [8, 8],
        "model.convolutions": 1,
        "train.epochs": 1,
        "train.schedule": {"name": "constant"},
    }
    config = resolve(load_recipe("digits"), {**small, **more})
    return Trial(config, PreparedData.open(prepared), 30)


def first_update(prepared: Path, rate: float, optimizer: str) -> list[np.ndarray]:
    """How the weights move; float32 rounds, so the rates of these tests are not tiny."""
    new = trial(prepared, **{"train.optimizer.name": optimizer})
    before = [weight.numpy() for weight in new.model.trainable_variables]
    new.step(rate)
    after = [weight.numpy() for weight in new.model.trainable_variables]
    return [weight - old for weight, old in zip(after, before, strict=True)]


@pytest.mark.parametrize(
    "optimizer", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "keras"]
)
def test_the_rates_reach_every_optimizer(optimizer: str, prepared: Path) -> None:
    """The first update of every one of them is proportional to the rate."""
    once, thrice = (first_update(prepared, rate, optimizer) for rate in (0.1, 0.3))
    for update, other in zip(once, thrice, strict=True):
        np.testing.assert_allclose(3 * update, other, rtol=1e-3, atol=1e-5)
    assert max(np.abs(update).max() for update in once) > 1e-3


def test_each_step_trains_on_the_next_batch_and_gives_its_own_loss(prepared: Path) -> None:
    """At a rate of nearly nothing the losses are those of the untrained model."""
    new = trial(prepared, **{"model.batch_normalization": False, "model.dropout": 0.0})
    weights = new.model.get_weights()
    other = trial(prepared, **{"model.batch_normalization": False, "model.dropout": 0.0})
    losses = [new.step(1e-12) for _ in range(30)]  # an epoch has 21
    assert int(new.model.optimizer.iterations) == 30
    expected = []
    for _ in range(30):
        images, targets = next(other._batches)
        expected.append(float(other.model.compute_loss(images, targets, other.model(images))))
    assert losses == pytest.approx(expected, rel=1e-4)
    assert len(set(losses)) == 30
    for weight, before in zip(new.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(weight, before, atol=1e-6)


def test_a_step_of_a_full_batch_takes_all_its_parts(prepared: Path) -> None:
    whole, parts = (
        trial(
            prepared,
            **{
                "train.batch_size": "full",
                "train.part_size": size,
                "model.batch_normalization": False,
                "model.dropout": 0.0,
            },
        )
        for size in (2000, 500)
    )
    for rate in (0.01, 0.02, 0.04):
        assert parts.step(rate) == pytest.approx(whole.step(rate), rel=1e-4)
    assert int(parts.model.optimizer.iterations) == 3


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished test; treat it as read-only."""
    directory = tmp_path_factory.mktemp("find_lr") / "try"
    assert main([*SMALL, "--highest", "100", "--output", str(directory)]) == 0
    return directory


def test_the_table_holds_every_step(tested: Path) -> None:
    with open(tested / "learning_rates.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["step", "learning_rate", "loss", "smoothed"]
    assert 20 < len(rows) <= 60
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == pytest.approx(geometric_rates(1e-6, 100, 60)[: len(rows)])


def test_the_suggestion_can_be_pasted_and_is_sensible(
    tested: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same again: it says the same, and the images are not prepared again."""
    before = (tested / "learning_rates.csv").read_bytes()
    assert main([*SMALL, "--highest", "100", "--output", str(tested)]) == 0
    assert (tested / "learning_rates.csv").read_bytes() == before
    out = capsys.readouterr().out
    assert "prepare    skipped" in out
    found = re.search(r"^try +--train.optimizer.learning_rate (\S+)$", out, re.MULTILINE)
    assert found
    config = resolve({}, {"train.optimizer.learning_rate": float(found[1])})
    assert 1e-4 < config.train.optimizer.learning_rate < 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_self_contained_and_accessible(tested: Path, page: Page, scheme: str) -> None:
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text))
    page.on("request", lambda request: found.append(request.url))
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto((tested / "learning_rates.html").as_uri())
    assert [text for text in found if not text.startswith(("file:", "data:"))] == []
    box = page.locator("svg.plot").bounding_box()
    assert box
    assert box["width"] > 600
    page.get_by_text(" steps", exact=False).locator("visible=true").first.wait_for()
    page.locator("summary").first.click()
    with open(tested / "learning_rates.csv") as stream:
        assert page.locator("tbody tr").count() == len(list(stream)) - 1
    violations = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in violations] == []
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


# What is refused


def digest_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_present_run_is_left_alone(run_copy: Path) -> None:
    before = digest_of(run_copy)
    with pytest.raises(ConfigError, match="and found a run; name another with --output"):
        main([*SMALL, "--output", str(run_copy)])
    assert digest_of(run_copy) == before


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"found other files \(letter.txt\)"):
        main(["--output", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(ConfigError, match="expected a directory, and found a file"):
        main(["--output", str(tmp_path / "letter.txt")])


def test_what_a_killed_one_left_is_no_obstacle(tested: Path) -> None:
    """As atomic_path leaves it, after a power cut."""
    (tested / ".partial-learning_rates.csv").write_text("half")
    assert main([*SMALL, "--highest", "100", "--output", str(tested)]) == 0
    assert not (tested / ".partial-learning_rates.csv").exists()


def test_two_at_once_are_refused(tested: Path) -> None:
    with (
        claimed(RunDirectory(tested)),
        pytest.raises(LockstepError, match="another process is at work"),
    ):
        main([*SMALL, "--output", str(tested)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--lowest", "1", "--highest", "0.1"],
            "expected 0 < --lowest < --highest, got --lowest 1",
        ),
        (["--lowest", "1", "--highest", "1"], "expected 0 < --lowest < --highest"),
        (["--lowest", "0"], "expected 0 < --lowest < --highest"),
        (["--highest", "inf"], "expected 0 < --lowest < --highest"),
        (["--lowest", "nan"], "expected 0 < --lowest < --highest"),
        (["--steps", "49"], "--steps: expected at least 50, got 49"),
        (["--steps", "many"], "expected int, got 'many'"),
        (["--train.epoch", "3"], "did you mean --train.epochs"),
        (["--data", "folder:nowhere"], "nowhere"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LockstepError, match=re.escape(message)) as caught:
        main(arguments)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_too_few_images_are_one_line(make_photos: MakePhotos, tmp_path: Path) -> None:
    photos = make_photos({"cat": 1, "dog": 5})
    with pytest.raises(LockstepError, match="cat"):
        main(["--data", f"folder:{photos}", "--output", str(tmp_path / "try")])


def test_a_first_loss_that_is_no_number_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trial, "step", lambda self, rate: math.nan)
    with pytest.raises(ConfigError, match="the loss of the first step is no finite number"):
        main([*SMALL, "--output", str(tmp_path / "try")])


@pytest.mark.slow
def test_a_range_too_low_suggests_nothing_but_draws_the_curve(
    tmp_path: Path, run_module: RunModule
) -> None:
    """The command, as a process of its own."""
    done = run_module(
        "pipeline.find_lr", *SMALL, "--lowest", "1e-9", "--highest", "1e-8", folder=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "expected the loss to fall at some rate" in done.stderr
    assert (tmp_path / "runs/try-digits/learning_rates.html").is_file()
