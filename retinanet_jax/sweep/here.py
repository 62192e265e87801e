"""Trials one after the other in this process, those with the same programs together."""

from retinanet_jax.programs import without_arguments
from retinanet_jax.shared import Shared
from retinanet_jax.sweep.plan import Trial
from retinanet_jax.sweep.trial import Progress, run_trial


def run_here(trials: list[Trial], progress: Progress) -> None:
    """Runs trials to their ends.

    Raises:
        Preempted: a signal asked to stop.
    """
    shared = Shared()
    for trial in together(trials):
        progress.begins(trial)
        progress.ends(trial, run_trial(trial, shared))


def together(trials: list[Trial]) -> list[Trial]:
    """In an order in which those that share programs follow each other, else as they come."""
    groups: dict = {}
    for trial in trials:
        groups.setdefault(without_arguments(trial.config()), []).append(trial)
    return [trial for group in groups.values() for trial in group]
