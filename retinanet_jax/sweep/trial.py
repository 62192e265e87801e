"""A trial in this process, and what is told of many while they run."""

import math
import threading
import time
import traceback

from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.workdir import write_whole
from retinanet_jax.sweep.trials import END_FILE, ERROR_FILE, FAILED, FINISHED, End, Trial
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import RunCache


def run_trial(trial: Trial, cache: RunCache) -> End:
    """Trains, or goes on, and leaves in the workdir how it ended. An error is an end, too.

    Raises:
        Preempted: a signal asked to stop; the trial goes on with the next start.
    """
    begin(trial)
    try:
        config = trial.config()
        keep_compilations(config.data.cache_dir)
        summary = train_and_evaluate(config, trial.workdir, cache).summary
    except Exception as error:
        return fail(trial, f"{type(error).__name__}: {error}", traceback.format_exc())
    end = End(FINISHED, {k: v if math.isfinite(v) else None for k, v in summary.items()})
    end.write(trial.workdir)
    return end


def begin(trial: Trial) -> None:
    """Takes away how the trial ended before: one that failed is tried again."""
    for name in (END_FILE, ERROR_FILE):
        (trial.workdir / name).unlink(missing_ok=True)


def fail(trial: Trial, error: str, details: str) -> End:
    """Leaves an error in the workdir: its first line for the table, the whole for a person."""
    end = End(FAILED, error=error.strip().splitlines()[0])
    write_whole(trial.workdir / ERROR_FILE, f"{details.rstrip()}\n")
    end.write(trial.workdir)
    return end


class Progress:
    """Lines about the whole sweep.

    Args:
        trials: all of them; those that are finished are not run.
    """

    def __init__(self, trials: list[Trial]):
        ends = [trial.end().state for trial in trials]
        self._total, self._done, self._failed = len(trials), ends.count(FINISHED), 0
        self._since, self._ended = time.monotonic(), 0
        self._lock = threading.Lock()  # workers end in threads of their own
        if self._done:
            print(f"{self._done} of {self._total} trials are finished already", flush=True)

    def begins(self, trial: Trial) -> None:
        """Says that a trial begins."""
        print(f"begins: {trial.name}", flush=True)

    def ends(self, trial: Trial, end: End) -> None:
        """Says how a trial ended, and how long the others may take."""
        with self._lock:
            self._count(end)
            print(f"{end.state}: {trial.name}: {describe(end)}\n{self._standing()}", flush=True)

    def _count(self, end: End) -> None:
        self._ended += 1
        self._done += end.state == FINISHED
        self._failed += end.state == FAILED

    def _standing(self) -> str:
        left = self._total - self._done - self._failed
        minutes = (time.monotonic() - self._since) / self._ended * left / 60
        failed = f", {self._failed} failed" if self._failed else ""
        rest = f", about {minutes:.0f} min left" if left else ""
        return f"{self._done} of {self._total} trials are finished{failed}{rest}"


def describe(end: End) -> str:
    """The first number of a trial that is finished, or the error of one that failed."""
    for name, value in end.summary.items():
        return f"{name} {math.nan if value is None else value:.3f}"
    return end.error
