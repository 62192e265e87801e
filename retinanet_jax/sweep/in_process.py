"""Trials one after the other in this process, those with the same functions together."""

from retinanet_jax.sweep.trial import Progress, run_trial
from retinanet_jax.sweep.trials import Trial
from retinanet_jax.training.setup import RunCache, without_arguments


def run_here(trials: list[Trial], progress: Progress) -> None:
    """Runs trials to their ends.

    Raises:
        Preempted: a signal asked to stop.
    """
    cache = RunCache()
    for trial in together(trials):
        progress.begins(trial)
        progress.ends(trial, run_trial(trial, cache))


def together(trials: list[Trial]) -> list[Trial]:
    """In an order in which those that share functions follow each other, else as they come."""
    groups: dict = {}
    for trial in trials:
        groups.setdefault(without_arguments(trial.config()), []).append(trial)
    return [trial for group in groups.values() for trial in group]
