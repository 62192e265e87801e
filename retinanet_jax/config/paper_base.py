"""The base configs of the paper's ablations: as published, and small ones for a CPU.

The files in experiments/paper/ show how to run each table. The small variants run on your own
folder with --config.data.name=folder --config.data.root=FOLDER --config.data.eval_split=val.
"""

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import choose_variant
from retinanet_jax.config.paper_tables import TABLES
from retinanet_jax.config.recipes import with_recipe
from retinanet_jax.config.settings import ConfigError, default_config

# Section 4: 600 pixels in all ablations, from ImageNet weights (torchvision's, and its layout).
_PUBLISHED = {
    "data.name": "coco",
    "pipeline.min_side": 600,
    "pipeline.max_side": 1000,
    "model.backbone": "resnet50",
    "model.pretrained": "imagenet",
    "model.norm": "auto",
    "model.frozen_stages": "auto",
    "model.dtype": "bfloat16",
    "train.evaluate_every": 10_000,
}
_RECIPE_PARTS = ("augmentation", "anchors", "matching", "loss", "optimizer", "train")

# Minutes on a CPU. Few small objects among distractors, with rare classes: almost all anchors are
# easy negatives, as on COCO.
_SMALL = {
    "data.name": "shapes",
    "data.shapes.image_size": (96, 96),
    "data.shapes.max_objects": 4,
    "data.shapes.size_range": (0.12, 0.4),
    "data.shapes.imbalance": 2.0,
    "data.shapes.distractors": 4,
    "pipeline.min_side": 96,
    "pipeline.max_side": 96,
    "model.backbone": "resnet18",
    "model.pretrained": None,
    "model.norm": "batch",
    "model.frozen_stages": 0,
    "model.backbone_levels": (3,),
    "model.max_level": 5,
    "model.fpn_channels": 64,
    "model.head_channels": 64,
    "model.head_depth": 2,
    "model.head_norm": "group",
    "model.dtype": "float32",
    # The smallest shapes have 11 pixels; the paper's smallest anchors 32.
    "anchors.size": 1.5,
    "loss.box": "giou",
    "loss.beta": 1 / 9,  # the default: unused
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 2e-3,
    "optimizer.base_batch_size": 8,
    "optimizer.weight_decay": 0.01,
    "optimizer.decay": "kernels",
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 20,
    "optimizer.ema_decay": 0.99,
    "train.steps": 400,
    "train.batch_size": 8,
    "train.log_every": 20,
    "train.checkpoint_every": 200,
    "train.evaluate_every": "none",
    "evaluation.batch_size": 20,
}


def base_config(table: str, variant: str = "") -> ConfigDict:
    """The config that the trials of a table have in common.

    Args:
        table: a key of TABLES.
        variant: '' as published, on COCO; 'small' on the built-in dataset.

    Raises:
        ConfigError: there is no such table or variant.
    """
    if table not in TABLES:
        raise ConfigError(f"table {table!r} is not one of {', '.join(TABLES)}")
    found = TABLES[table]
    fields = {"": _PUBLISHED | found.base, "small": _PUBLISHED | found.base | _SMALL | found.small}
    config = with_recipe(default_config(), "paper", only=_RECIPE_PARTS)
    config.update_from_flattened_dict(choose_variant(fields, variant))
    return config
