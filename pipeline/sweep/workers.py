"""Workers: each takes one trial after another, in this process or in several."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection

from filelock import FileLock, Timeout

from export.quiet_tensorflow import import_tensorflow
from export.run_lock import InUseError
from pipeline.stopping import Stopped, stop_signals
from pipeline.sweep.describe import describe_end
from pipeline.sweep.directory import SweepDirectory
from pipeline.sweep.search import Search, load_search
from pipeline.sweep.study import Study
from serve.command import LockstepError, run_command

PATIENCE_SECONDS = 60


def work(sweep: SweepDirectory, search: Search) -> None:
    """Take trials until all have ended; prints a line for each."""
    study = Study(sweep, search)
    if study.is_done():
        return
    import_tensorflow()
    from pipeline.sweep.trial import run_trial, tidy

    with stop_signals.deferred():  # not in the middle of what the storage does
        while True:
            with study.next_trial() as trial:
                if trial is None:
                    return
                run_trial(study, sweep, search, trial)
                tidy(study, sweep, search)
                print(describe_end(study, search, trial.number), flush=True)
            stop_signals.check()


def work_in_processes(sweep: SweepDirectory, search: Search, count: int) -> None:
    """The same with `count` processes, each with its share of the cores.

    Whatever ends a worker, the others take up its trial. A worker whose parent is gone saves and
    stops.

    Raises:
        LockstepError: workers ended before their time, and trials are left.
        Stopped: a signal asked for it; the workers have saved.
    """
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // count)
    reader, writer = context.Pipe(duplex=False)
    workers = [
        context.Process(target=_worker, args=(sweep, search.trials, threads, reader))
        for _ in range(count)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        writer.close()  # to the workers this is the end, as when this process is killed
        for worker in workers:
            if worker.pid:
                worker.join()
        reader.close()
    codes = [worker.exitcode for worker in workers]
    if not Study(sweep, search).is_done():
        raise LockstepError(
            f"workers ended before their time, with exit codes {codes}; what is finished is kept, "
            "and the same command goes on"
        )


def wait_for_workers(sweep: SweepDirectory) -> None:
    """Let the workers of a command that was killed end, which they do by themselves.

    Raises:
        InUseError: they do not.
    """
    for lock in sorted(sweep.trials.glob("*/.lock")):
        try:
            with FileLock(lock, timeout=PATIENCE_SECONDS):
                pass
        except Timeout:
            raise InUseError(
                f"{lock.parent}: a worker of an earlier command is still at work; end it first"
            ) from None


def _worker(sweep: SweepDirectory, trials: int, threads: int, parent: Connection) -> None:
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(threads)  # read when TensorFlow starts
    threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()

    def command(_: list[str]) -> int:
        search = load_search(str(sweep.search), trials=trials)
        try:
            with stop_signals.received():
                work(sweep, search)
        except Stopped as stopped:
            return stopped.exit_code
        return 0

    run_command(command)


def _stop_with(parent: Connection) -> None:
    parent.poll(None)  # until its other end is closed, by the parent or with it
    if not stop_signals.number:
        os.kill(os.getpid(), signal.SIGTERM)
