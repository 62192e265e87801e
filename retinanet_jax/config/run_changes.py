"""Changes to the settings of a run: an evaluation or analysis without --config.

The settings are those of the checkpoint, which is read after the flags are. This file is therefore
the experiment for the parser, which takes the names and types of the fields from it.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from retinanet_jax.config.data_section import DataConfig
from retinanet_jax.config.experiment_files import explain_unknown_field
from retinanet_jax.config.settings import (
    Config,
    ConfigError,
    as_tree,
    default_config,
    from_config_dict,
)

# Where the files of a dataset are and how its splits are called: not the same for another kind.
_PLACES = ("root", "layout", "train_split", "eval_split", "annotations", "mix")


def get_config() -> ConfigDict:
    """Returns all fields, for the parser of the flags."""
    return default_config()


def with_changes(stored: Config, changes: Mapping[str, Any]) -> Config:
    """Returns the config of a run with changed fields.

    Args:
        stored: config of the run.
        changes: values by 'SECTION.FIELD'. With another 'data.name', root, splits and annotations
            are not those of the run, but their defaults, unless they are among the changes.

    Raises:
        ConfigError: a field does not exist, or a value is invalid.
    """
    tree = as_tree(stored)
    if changes.get("data.name", stored.data.name) != stored.data.name:
        tree.data.update({field: getattr(DataConfig, field) for field in _PLACES})
    for field, value in changes.items():
        try:
            tree.update_from_flattened_dict({field: value})
        except (AttributeError, KeyError) as error:
            raise ConfigError(explain_unknown_field(field)) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"config.{field}: {value!r} is invalid: {error}") from error
    return from_config_dict(tree)


def cache_of(config: Config | Mapping[str, Any]) -> str:
    """Returns config.data.cache_dir of a config, or of changes, for which none is the default."""
    if isinstance(config, Config):
        return config.data.cache_dir
    return config.get("data.cache_dir", DataConfig.cache_dir)
