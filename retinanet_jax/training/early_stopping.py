"""Early stopping: a run ends once its AP has stopped improving (config.train.patience)."""

from retinanet_jax.config.sections import TrainConfig


def patience_is_used_up(config: TrainConfig, step: int, best: int | None) -> bool:
    """Whether the last config.patience evaluations, up to that of `step`, did not improve the AP.

    Evaluations are config.evaluate_every steps apart, so the best step is enough to count the
    evaluations after it, even in a run that was restarted.

    Args:
        config: the `train` section of the configuration.
        step: number of updates done.
        best: step of the best evaluation so far; None before the first evaluation.
    """
    if config.patience is None or best is None or not config.evaluates_after(step):
        return False
    return step // config.evaluate_every - best // config.evaluate_every >= config.patience
