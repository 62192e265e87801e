"""Early stopping: a run ends once its AP has stopped improving (config.train.patience)."""

from retinanet_jax.config.sections import TrainConfig


def patience_is_used_up(config: TrainConfig, step: int, best: int | None) -> bool:
    """Whether config.patience evaluations in a row, up to that of `step`, were not the best.

    Evaluations are config.evaluate_every steps apart, so the best step is enough to count those
    after it, also in a run that is started again.

    Args:
        config: the section `train` of a run.
        step: number of updates done.
        best: step of the best evaluation so far; None if there is none.
    """
    if config.patience is None or best is None or not config.evaluates_after(step):
        return False
    return step // config.evaluate_every - best // config.evaluate_every >= config.patience
