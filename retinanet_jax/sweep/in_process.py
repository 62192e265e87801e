"""Trials one after the other in this process; those with the same compiled functions together."""

from retinanet_jax.sweep.run_trial import Progress, run_trial
from retinanet_jax.sweep.trials import Trial
from retinanet_jax.training.setup import RunCache, compilation_key


def run_here(trials: list[Trial], progress: Progress) -> None:
    """Runs trials to their ends.

    Raises:
        Preempted: a signal asked to stop.
    """
    cache = RunCache()
    for trial in by_compilation(trials):
        progress.begins(trial)
        progress.ends(trial, run_trial(trial, cache))


def by_compilation(trials: list[Trial]) -> list[Trial]:
    """Trials with the same compiled functions next to each other, otherwise in their order."""
    groups: dict = {}
    for trial in trials:
        groups.setdefault(compilation_key(trial.config()), []).append(trial)
    return [trial for group in groups.values() for trial in group]
