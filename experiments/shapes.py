"""The built-in dataset: trains a detector in minutes on any computer, without files.

Data: five classes of shapes on textured ground, drawn on the fly at 128x128, over three octaves of
size; 20,000 images for training and 200 other images for evaluation.

Network: a ResNet-18 up to C3 from random weights, with heads of two convolutions, trained for 700
steps of 8 images.

Expected: AP about .7 and AP50 about .96 after 3 to 6 minutes on two CPU cores, with compilation.
experiments/README.md has all measured numbers.

Command:
    python -m retinanet_jax.main --config=experiments/shapes.py --workdir=runs/shapes
"""

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import choose_variant
from retinanet_jax.config.settings import default_config


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config: '' is the run above; 'tiny' only checks that everything works."""
    config = default_config()
    config.data.name = "shapes"
    config.data.shapes.image_size = (128, 128)
    config.pipeline.min_side = config.pipeline.max_side = 128

    config.model.backbone = "resnet18"
    config.model.norm = "batch"
    config.model.frozen_stages = 0
    config.model.backbone_levels = (3,)
    config.model.max_level = 6
    config.model.fpn_channels = config.model.head_channels = 64
    config.model.head_depth = 2
    config.model.head_norm = "group"
    # The smallest shapes have 14 pixels; the paper's anchors begin at 32.
    config.anchors.size = 2.0
    config.loss.box = "giou"

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.base_batch_size = 8
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay = "kernels"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 20
    config.optimizer.ema_decay = 0.99

    config.train.steps = choose_variant({"": 700, "tiny": 30}, variant)
    config.train.batch_size = 8
    config.train.log_every = 20
    config.train.checkpoint_every = 200
    config.evaluation.batch_size = 20
    return config
