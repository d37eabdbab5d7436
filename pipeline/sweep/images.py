"""Prepared images that trials share."""

from filelock import FileLock

from export.run_directory import RunDirectory
from pipeline.config import Config
from pipeline.recipe import fingerprint
from pipeline.run import PREPARE
from pipeline.stages import StageRunner
from pipeline.sweep.directory import SweepDirectory


def prepare_images(config: Config, sweep: SweepDirectory) -> RunDirectory:
    """The images of a config, read now if no trial before had the same ones."""
    prepared = sweep.prepared(fingerprint(PREPARE.reads(config)))
    prepared.path.mkdir(parents=True, exist_ok=True)
    with FileLock(prepared.lock):
        StageRunner(config, prepared, (PREPARE,)).run(PREPARE)
    return prepared
