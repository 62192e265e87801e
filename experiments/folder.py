"""Your own images: a folder in any layout that docs/your_data.md lists.

The layout is recognized, and the folder is read in place; its index is kept in
config.data.cache_dir. Without a validation split, the share config.data.val_share of the training
images is held out.

`retinanet-jax train --data=FOLDER` and `retinanet_jax.train("FOLDER")` run this experiment with
runs/FOLDER as workdir.

Variants:
    (none)     small on a CPU, resnet50 on a GPU or TPU. A run whose processes are started with
               --coordinator must name one of them.
    resnet50   for a GPU: ResNet-50 at 800/1333, 16 images per step.
    small      for a few hundred photographs on a laptop's CPU: ResNet-18 up to C4, heads of two
               convolutions with 96 channels, 256x192 pixels, anchors as large as the boxes allow,
               boxes as distributions.
    modern     the variant for the device, with methods published after the paper: one anchor per
               location with ATSS, quality and distribution focal loss, GIoU, group norm in the
               heads, scale jitter, AdamW, cosine schedule, moving average. On a CPU, it was behind
               small on three sets; on a GPU, it was not measured. Compare both on your data.

Length: depends on the number of images. small runs for 8 epochs and at least 400 steps, resnet50
for 16 epochs and at least 2,000 steps (config.train.auto_steps). --epochs=20 or --steps=1000
(config.train.epochs, config.train.steps) sets another length. The run evaluates after each epoch,
at most ten times.

Weights: model.pretrained='imagenet', torchvision's V1 weights of the backbone, downloaded once (98
MiB, small 45 MiB). --weights=none starts from random weights, with a lower AP. --weights also takes
a RetinaNet trained on COCO or an earlier run: a name from `retinanet-jax weights`, a file or a
workdir. If the classes differ, the class output starts anew.

Commands:
    retinanet-jax train --data=FOLDER
    python -m retinanet_jax.main --config=experiments/folder.py --data=FOLDER
    python -m retinanet_jax.main --config=experiments/folder.py:small --workdir=runs/mine \\
        --config.data.root=FOLDER \\
        [--config.pipeline.min_side=240 --config.pipeline.max_side=320] [--config.train.steps=2000]

experiments/README.md has results on real photographs.
"""

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import choose_variant
from retinanet_jax.config.settings import default_config
from retinanet_jax.runtime.accelerator import has_accelerator


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config: 'resnet50' for a GPU, 'small' for a CPU, '' or 'modern' for either."""
    if not variant:
        variant = "resnet50" if has_accelerator() else "small"
    config = default_config()
    config.data.name = "folder"
    config.data.train_split = "train"
    config.data.eval_split = "auto"
    config.pipeline.max_boxes = "auto"
    config.model.pretrained = "imagenet"
    config.model.norm = "auto"
    config.model.frozen_stages = "auto"
    variants = {"resnet50": _resnet50, "small": _small, "modern": _modern}
    return choose_variant(variants, variant)(config)


def _resnet50(config: ConfigDict) -> ConfigDict:
    """detectron2's recipe, shorter: a folder has fewer images than COCO's 118,000."""
    config.model.backbone = "resnet50"
    config.model.dtype = "bfloat16"
    config.optimizer.learning_rate = 0.01
    config.optimizer.warmup_steps = 500
    config.optimizer.gradient_clip = 10.0
    config.train.steps = "auto"
    config.train.auto_steps = (16.0, 2_000)
    config.train.batch_size = 16
    config.train.checkpoint_every = 500
    config.train.evaluate_every = "auto"
    return config


def _small(config: ConfigDict) -> ConfigDict:
    config.pipeline.min_side, config.pipeline.max_side = 192, 256
    # Of a few hundred steps, those of two more programs would not pay for compiling them.
    config.pipeline.train_canvas = config.pipeline.eval_canvas = "one"

    config.model.backbone = "resnet18"
    config.model.frozen_stages = 3  # of pretrained weights; random ones are trained
    config.model.norm = "batch"  # of the stages that are trained
    config.model.backbone_levels = (3, 4)
    config.model.max_level = 6
    config.model.fpn_channels = config.model.head_channels = 96
    config.model.head_depth = 2
    config.model.head_norm = "group"
    # Places boxes more exactly on each set of experiments/README.md; 17 steps do no better.
    config.model.box_bins = 9
    # Images this small may hold objects of 12 pixels; the paper's anchors begin at 32.
    config.anchors.size = "auto"
    # The paper's 2 leaves less to learn from in a few hundred steps (experiments/README.md).
    config.loss.gamma = 1.0
    config.loss.box = "giou"

    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.base_batch_size = 4
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay = "kernels"
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 20
    config.optimizer.gradient_clip = 10.0
    config.optimizer.ema_decay = 0.99
    config.optimizer.backbone_factor = "auto"

    config.train.steps = "auto"
    config.train.auto_steps = (8.0, 400)
    config.train.batch_size = 4
    config.train.log_every = 20
    config.train.checkpoint_every = 200
    config.train.evaluate_every = "auto"
    config.evaluation.batch_size = 8
    return config


def _modern(config: ConfigDict) -> ConfigDict:
    """The parts of experiments/coco.py:modern that suit few images."""
    config = _resnet50(config) if has_accelerator() else _small(config)
    config.augmentation.scale_jitter = (0.5, 1.5)
    config.model.head_norm = "group"
    config.model.box_bins = 17
    # One square anchor, of 64 pixels on P3; in the small images 32.
    config.anchors.scales = config.anchors.ratios = (1.0,)
    config.anchors.size = 8.0 if config.model.backbone == "resnet50" else 4.0
    config.anchors.center = 0.5
    config.matching.assigner = "atss"
    config.loss.classification = "quality_focal"
    config.loss.gamma = 2.0
    config.loss.box = "giou"
    config.loss.box_weight = 2.0
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "cosine"
    config.optimizer.decay = "kernels"
    config.optimizer.weight_decay = 0.05
    if config.model.backbone == "resnet50":
        config.optimizer.learning_rate = 1e-4
        config.optimizer.ema_decay = 0.999
    return config
