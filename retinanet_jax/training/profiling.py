"""Traces some steps for Perfetto or TensorBoard: config.train.profile_steps."""

from pathlib import Path

import jax

from retinanet_jax.runtime.workdir import WorkdirError
from retinanet_jax.training.run_log import RunLog


class StepTrace:
    """Traces the steps from the first to the last of `steps` with JAX's profiler.

    The first process writes the trace to WORKDIR/profile. As a context manager, it also ends a
    trace that an error cuts short.

    Args:
        steps: (first, last), or () for no trace.
        log: log of the run.

    Raises:
        WorkdirError: the folder cannot be created; raised before the first step.
    """

    def __init__(self, steps: tuple[int, ...], log: RunLog):
        self._steps = steps if log.active else ()
        self._log, self._running, self._started = log, False, False
        self._last = 0  # step that was traced
        self._folder = Path()
        if self._steps:
            self._folder = log.workdir / "profile"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                fix = "leave out config.train.profile_steps, or use another workdir"
                raise WorkdirError(
                    f"{self._folder}: not writable: {error.strerror}; {fix}"
                ) from error

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if self._steps and not self._started and error is None:
            first, last = self._steps
            self._log.message(
                f"warning: no trace: config.train.profile_steps={first},{last} begins outside the "
                "steps that ran since this start"
            )

    def start_before(self, step: int) -> None:
        """Starts the trace if `step` is its first step."""
        if self._steps and step == self._steps[0]:
            jax.profiler.start_trace(self._folder)
            self._running = self._started = True
        self._last = step

    def ends_with(self, step: int) -> bool:
        """Whether the running trace ends after `step`; call `stop` once the step is done."""
        return self._running and step == self._steps[1]

    def stop(self) -> None:
        """Writes the trace if one is running."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            steps = f"{self._steps[0]} to {self._last}"
            self._log.message(
                f"trace of steps {steps}: {self._folder}; open *.trace.json.gz in "
                "ui.perfetto.dev, or the folder in TensorBoard with the xprof plugin"
            )
