"""What augmentation does to the training images: a grid of them, as training sees them.

python -m pipeline.preview
python -m pipeline.preview --augment.mixup 0.4 --output preview.png
python -m pipeline.preview --recipe fashion-mnist --each
"""

from pathlib import Path

from export.prepared_data import PreparedData
from export.quiet_tensorflow import import_tensorflow
from pipeline.checks import check_writable
from pipeline.command_line import config_parser, read_config
from pipeline.config import Config
from pipeline.options.augment import AugmentOptions
from pipeline.recipe import ConfigError
from pipeline.report.augmentation import each_alone, picture_of, what_training_saw
from pipeline.report.rendering import render
from pipeline.trial_directory import PREVIEW, default_path, entered
from serve.atomic import atomic_path, write_text
from serve.command import run_command

EPILOG = """\
examples:
  python -m pipeline.preview
  python -m pipeline.preview --augment.mixup 0.4 --output preview.png
  python -m pipeline.preview --recipe fashion-mnist --each

Draws are those of the first epochs of a run of this config: the same pixels, from the same seed.
Under each image stands its target, with the shares of the classes where images are mixed.
"""
SUFFIXES = (".html", ".png")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = config_parser(
        prog="python -m pipeline.preview",
        description="Draws training images as augmentation shows them to the model.",
        epilog=EPILOG,
        usage="%(prog)s [--recipe NAME|FILE] [--images N] [--draws N] [--each] [--output FILE] "
        "[--KEY VALUE ...]",
    )
    parser.add_argument(
        "--images", metavar="N", type=int, default=8, help="images, one row each (default: 8)"
    )
    parser.add_argument(
        "--draws", metavar="N", type=int, default=8, help="epochs, one column each (default: 8)"
    )
    parser.add_argument(
        "--each",
        action="store_true",
        help="one image under every augmentation that there is, alone, one row each: as strong as "
        "configured, or strong enough to be seen",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="a page (.html) or a picture (.png) (default: runs/try-<recipe>/preview.html; the "
        "images are prepared beside that in any case)",
    )
    config, name, options = read_config(parser, arguments)
    for option in ("images", "draws"):
        if not 1 <= getattr(options, option) <= MOST:
            raise ConfigError(f"--{option}: expected 1 to {MOST}, got {getattr(options, option)}")
    directory = default_path(name)
    output = Path(options.output or directory / PREVIEW)
    if output.suffix not in SUFFIXES:
        raise ConfigError(
            f"--output: expected a name that ends in {' or '.join(SUFFIXES)}, got {output}"
        )
    check_writable(output.parent)
    with entered(directory, config) as data:
        _draw(config, data, name, output, options.images, options.draws, each=options.each)
    return 0


MOST = 100


def _draw(
    config: Config,
    data: PreparedData,
    name: str,
    output: Path,
    images: int,
    draws: int,
    *,
    each: bool,
) -> None:
    import_tensorflow()
    if config.augment == AugmentOptions() and not each:
        print("preview    no augmentation is configured: each that there is, alone")
        each = True
    if each:
        rows = each_alone(config, data, draws)
        caption = "One image under every augmentation alone."
    else:
        rows = what_training_saw(config, data, images, draws)
        caption = "What training sees of each image in its first epochs; below it, its target."
    if output.suffix == ".png":
        with atomic_path(output) as temporary:
            temporary.write_bytes(picture_of(rows))
    else:
        given = {key: value for key, value in config.augment.model_dump().items() if value}
        write_text(
            output,
            render(
                "preview.html",
                name=name,
                seed=config.seed,
                options=given,
                rows=rows,
                caption=caption,
            ),
        )
    print(f"preview    {output}: {len(rows)} rows of {draws} draws")


if __name__ == "__main__":
    run_command(main)
