"""The smallest network and data that still are a RetinaNet, for tests of what surrounds them."""

import numpy as np

from retinanet_jax.config.settings import default_config, from_config_dict
from retinanet_jax.data.pipeline.batch import Batch


def small_config(**fields):
    """A config of a ResNet-18 up to C3 on shapes of 64 pixels; fields as model__norm='group'."""
    return from_config_dict(get_config(**fields))


def get_config(**fields):
    """The same as a tree, for --config=tests/small.py."""
    tree = default_config()
    values = {
        "data.shapes.image_size": (64, 64),
        "data.shapes.num_train": 16,
        "data.shapes.num_eval": 5,
        "pipeline.min_side": 64,
        "pipeline.max_side": 64,
        "model.backbone": "resnet18",
        "model.norm": "batch",
        "model.frozen_stages": 0,
        "model.backbone_levels": (3,),
        "model.max_level": 4,
        "model.fpn_channels": 16,
        "model.head_channels": 16,
        "model.head_depth": 1,
        "optimizer.warmup_steps": 0,
        "optimizer.schedule": "constant",
        "train.steps": 4,
        "train.batch_size": 4,
        "train.log_every": 1,
        "train.checkpoint_every": 2,
        "evaluation.batch_size": 4,
        "evaluation.example_images": 2,
    }
    tree.update_from_flattened_dict(values | {k.replace("__", "."): v for k, v in fields.items()})
    return tree


def small_batch(seed: int = 0, rows: int = 4, canvas: tuple[int, int] = (64, 64)) -> Batch:
    """A batch of noise with three boxes an image, one of them a crowd, and one of padding."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 30, (rows, 4, 2))
    sides = rng.uniform(12, 32, (rows, 4, 2))
    boxes = np.concatenate([corners, corners + sides], -1).astype(np.float32)
    labels = rng.integers(0, 5, (rows, 4)).astype(np.int32)
    labels[:, 3] = -1
    crowd = np.zeros((rows, 4), bool)
    crowd[:, 2] = True
    size = np.tile(np.float32(canvas), (rows, 1))
    return Batch(
        images=rng.integers(0, 256, (rows, *canvas, 3), np.uint8),
        image_sizes=size,
        original_sizes=size,
        gt_boxes=boxes,
        gt_labels=labels,
        gt_crowd=crowd,
        valid=np.ones(rows, bool),
    )
