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
    """Trials with the same compiled functions next to each other, of these those with equal data.

    Otherwise in their order.
    """
    first: dict = {}  # the place of the first trial with such a key, or with such data
    placed = []
    for place, trial in enumerate(trials):
        config = trial.config()
        parts = compilation_key(config), config.data
        placed.append((*(first.setdefault(part, place) for part in parts), place))
    return [trials[place] for *_, place in sorted(placed)]
