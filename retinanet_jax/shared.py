"""What runs that go one after the other in a process can share: data sets, compiled functions."""

import functools

from jax.sharding import Mesh

from retinanet_jax.config import Config, DataConfig
from retinanet_jax.data.dataset import Dataset, load_dataset
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.programs import Programs, make_programs, without_arguments


class Shared:
    """What a run takes over from the one before it in the process, where both would make the same.

    data_sets: from config.data to what is trained on and what is evaluated on.
    """

    def __init__(self):
        # The latest alone: one run goes after the other, and data sets may be large.
        self.data_sets = functools.lru_cache(1)(load_data_sets)
        self._programs = functools.lru_cache(1)(make_programs)

    def programs(self, config: Config, num_classes: int, mesh: Mesh) -> Programs:
        """`make_programs`."""
        return self._programs(without_arguments(config), num_classes, mesh)


def load_data_sets(data_config: DataConfig) -> tuple[Dataset, Dataset]:
    """What `data_config` says to train on, and what to evaluate on."""
    train_set = load_training_set(data_config)
    return train_set, load_dataset(data_config, data_config.eval_split)
