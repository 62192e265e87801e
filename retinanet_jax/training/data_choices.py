"""Fields that are 'auto' until the training set is known: anchors.size and pipeline.max_boxes."""

from pathlib import Path

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.training.anchor_size import with_anchor_size, with_any_anchor_size
from retinanet_jax.training.max_boxes import with_least_max_boxes, with_max_boxes


def with_data_choices(
    config: Config, train_set: Dataset, workdir: Path | None = None
) -> tuple[Config, str]:
    """Returns `config` with numbers instead of 'auto', and a line for the log, or ''.

    Args:
        config: configuration of the run; returned unchanged if none of these fields is 'auto'.
        train_set: training set of the run.
        workdir: a run that resumes, whose config.json has the numbers. None: compute them.
    """
    config, line = with_anchor_size(config, train_set, workdir)
    return with_max_boxes(config, train_set, workdir), line


def without_data_choices(config: Config) -> Config:
    """Returns `config` with numbers for any dataset, for a plan without the data."""
    return with_least_max_boxes(with_any_anchor_size(config))
