"""Running one trial in this process; progress messages of a sweep."""

import time
import traceback

from retinanet_jax.runtime.compilation_cache import keep_compilations
from retinanet_jax.runtime.workdir import locked, write_whole
from retinanet_jax.sweep.trials import END_FILE, ERROR_FILE, FAILED, FINISHED, End, Trial
from retinanet_jax.training.run import train_and_evaluate
from retinanet_jax.training.setup import RunCache

# Seconds. A worker of a killed sweep may still be saving its last step in the workdir.
PATIENCE = 60.0


def run_trial(trial: Trial, cache: RunCache) -> End:
    """Trains, or resumes, and writes trial.json into the workdir. An error is an end, too.

    Raises:
        Preempted: a signal asked to stop; the next start resumes the trial.
    """
    begin(trial)
    try:
        config = trial.config()
        with locked(trial.workdir, patience=PATIENCE):
            pass
        keep_compilations(config.data.cache_dir)
        summary = train_and_evaluate(config, trial.workdir, cache).summary
    except Exception as error:
        return fail(trial, f"{type(error).__name__}: {error}", traceback.format_exc())
    end = End(FINISHED, summary)
    end.write(trial.workdir)
    return end


def begin(trial: Trial) -> None:
    """Removes trial.json of an earlier start: a failed trial runs again."""
    for name in (END_FILE, ERROR_FILE):
        (trial.workdir / name).unlink(missing_ok=True)


def fail(trial: Trial, error: str, details: str) -> End:
    """Writes a failed trial.json with the first line of the error, and error.txt with details."""
    end = End(FAILED, error=error.strip().splitlines()[0])
    write_whole(trial.workdir / ERROR_FILE, f"{details.rstrip()}\n")
    end.write(trial.workdir)
    return end


class Progress:
    """Prints the progress of a sweep.

    Args:
        trials: all trials; finished ones are not run again.
    """

    def __init__(self, trials: list[Trial]):
        ends = [trial.end().state for trial in trials]
        self._total, self._done, self._failed = len(trials), ends.count(FINISHED), 0
        self._since, self._ended = time.monotonic(), 0
        if self._done:
            print(f"{self._done} of {self._total} trials already finished", flush=True)

    def begins(self, trial: Trial) -> None:
        """A trial starts."""
        print(f"starting {trial.name}", flush=True)

    def ends(self, trial: Trial, end: End) -> None:
        """A trial ended: prints its result, and an estimate of the time left."""
        self._ended += 1
        self._done += end.state == FINISHED
        self._failed += end.state == FAILED
        print(f"{end.state}: {trial.name}: {describe(end)}\n{self._status()}", flush=True)

    def _status(self) -> str:
        left = self._total - self._done - self._failed
        minutes = (time.monotonic() - self._since) / self._ended * left / 60
        failed = f", {self._failed} failed" if self._failed else ""
        rest = f", about {minutes:.0f} min left" if left else ""
        return f"{self._done} of {self._total} trials finished{failed}{rest}"


def describe(end: End) -> str:
    """The first metric of a finished trial, or the error of a failed one."""
    for name, value in end.summary.items():
        return f"{name} undefined" if value is None else f"{name} {value:.3f}"
    return end.error
