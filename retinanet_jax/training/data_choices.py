"""Fields that are 'auto' until the training set is known: anchors.size and pipeline.max_boxes."""

from pathlib import Path

from retinanet_jax.config.settings import Config
from retinanet_jax.data.dataset import Dataset
from retinanet_jax.training.anchor_size import with_anchor_size, with_any_anchor_size
from retinanet_jax.training.max_boxes import with_least_max_boxes, with_max_boxes


def with_data_choices(
    config: Config, train_set: Dataset, workdir: Path | None = None
) -> tuple[Config, str]:
    """`config` with numbers in place of 'auto', and a line for the log, '' if there is none.

    Args:
        config: of the run; without these 'auto' it comes back unchanged.
        train_set: of the run.
        workdir: of a run that resumes: its config.json has the numbers. None: computed.
    """
    config, line = with_anchor_size(config, train_set, workdir)
    return with_max_boxes(config, train_set, workdir), line


def without_data_choices(config: Config) -> Config:
    """`config` with the numbers of any dataset in place of 'auto', for a plan without the data."""
    return with_least_max_boxes(with_any_anchor_size(config))
