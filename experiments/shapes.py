"""The built-in data set: a detector from nothing in minutes, on any computer.

What: five kinds of shapes on textured ground, drawn on the fly at 128x128, over three octaves of
size; 20,000 pictures to train on, 200 others to evaluate on. A ResNet-18 without pretrained
weights, heads of two convolutions.

Command:
    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=runs/shapes
"""

from ml_collections import ConfigDict

from retinanet_jax.config import choose_variant, default_config


def get_config(variant: str = "") -> ConfigDict:
    """'' is the run above; 'tiny' only shows that everything works."""
    config = default_config()
    config.data.name = "shapes"
    config.data.shapes.image_size = (128, 128)
    config.pipeline.min_side = config.pipeline.max_side = 128

    config.model.backbone = "resnet18"
    config.model.norm = "batch"
    config.model.frozen_stages = 0
    config.model.backbone_levels = (3, 4)
    config.model.max_level = 6
    config.model.fpn_channels = config.model.head_channels = 64
    config.model.head_depth = 2

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.base_batch_size = 16
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay = "kernels"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 20

    config.train.steps = choose_variant({"": 400, "tiny": 30}, variant)
    config.train.batch_size = 16
    config.train.log_every = 10
    config.train.checkpoint_every = 200
    config.evaluation.batch_size = 20
    return config
