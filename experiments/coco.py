"""COCO 2017: the standard RetinaNet baselines.

Source: Lin et al. 2017 (arXiv 1708.02002), with detectron2's settings where the paper gives none:
long side at most 1333, horizontal flips, SGD with momentum .9 and weight decay 1e-4, learning rate
.01 for 16 images, 90k steps with the rate divided by 10 at 60k and 80k, frozen batch norm, stem and
first stage frozen. Evaluation uses a short side of 800. The variants marked * train on short sides
from 640 to 800 (multi-scale), like detectron2; the others train on 800 alone, like the paper and
MMDetection.

Expected AP on val2017, as published (not measured here):
    (none) * ResNet-50, 90k steps: detectron2 37.4
    flips    ResNet-50, 90k steps: MMDetection 36.5
    r50_3x * ResNet-50, 270k steps: detectron2 38.7
    r101     ResNet-101, 90k steps: MMDetection 38.5
    x101     ResNeXt-101-64x4d, 90k steps: Detectron 39.8 (on minival 2014)
    r50_500  ResNet-50 at 500 pixels, 90k steps: paper, Table 1e: 32.5 (on test-dev)
    lsj      ResNet-50 at 1024x1024, 270k steps, large scale jitter (arXiv 2012.07177): no
             published result of a RetinaNet is known
    modern   ResNet-50 at 1024x1024, 50 epochs, with methods published later: 43 to 45 expected,
             not measured
    modern_long  the same for 100 epochs

The parts of modern are: large scale jitter (arXiv 2012.07177), ImageNet weights of torchvision's
second recipe, live batch norm over all devices, group norm in the heads, one square anchor of 8
strides per location with ATSS (arXiv 1912.02424), quality focal loss with GIoU (arXiv 2006.04388),
AdamW with a cosine schedule, and a moving average of the weights. Published results of some parts,
in other networks with ResNet-50: ATSS 39.3 (90k steps), GFL 42.9 and TOOD 44.5 (180k steps,
multi-scale). Each part is a field; one sweep runs all combinations of some of them:
    retinanet-jax sweep --config=coco:modern --workdir=runs/parts --config.data.root=TFDS \\
        --grid matching.assigner=iou,atss,task_aligned \\
        --grid loss.classification=focal,quality_focal --grid model.centerness=False,True \\
        --grid model.box_bins=0,17 \\
        --grid optimizer.ema_decay=none,0.9998

Further variants are the recipes of public projects (retinanet_jax/config/recipes.py): paper,
detectron2, torchvision_v1, torchvision_v2, mmdetection, tf_vision. Weights must fit: the first two
expect BGR pixels and strides on the 1x1 convolutions. with_recipe(config, NAME, only=("matching",))
applies a part of a recipe, such as its matching, to any config.

Hardware: one or several accelerators, whose number divides 16 images. Memory and time have not been
measured yet; docs/accelerators.md has the compilers' plans. The plan of modern for eight H200 with
two images each has 2.2 GiB, and at least 7.4 ms per step or 46 minutes in total
(retinanet-jax plan --config=coco:modern --chip=h200:8).

Data: TFDS `coco/2017` in config.data.root ('' is ~/tensorflow_datasets). --download downloads and
prepares it there (20 GB of archives, 41 GB of disk). To use archives that you have in COCO/:
    retinanet-jax prepare --dataset=coco --source=COCO --data_dir=TFDS
For COCO 2014, use --dataset=coco2014 there and --config.data.name=coco2014 below.
Weights: model.pretrained='imagenet', the ImageNet weights of the backbone, downloaded once:
torchvision's V1, or MSRA's for the recipes with strides on 1x1 convolutions and BGR (paper,
detectron2, mmdetection_caffe). --config.model.pretrained also takes imagenet_v2, a name from
`retinanet-jax weights`, a file or a run; none starts from random weights.

Command:
    python -m retinanet_jax.main --config=experiments/coco.py --workdir=runs/coco \\
        --config.data.root=TFDS
TFDS's own coco/2017 has areas truncated to integers; if you use it, add
    --config.data.annotations=COCO/annotations/instances_val2017.json
"""

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import choose_variant
from retinanet_jax.config.recipes import RECIPES
from retinanet_jax.config.settings import default_config

MULTI_SCALE = {"augmentation.scales": tuple(range(640, 801, 32))}
VARIANTS = {
    "": MULTI_SCALE,
    "flips": {},
    "r50_3x": MULTI_SCALE | {"train.steps": 270_000},
    "r101": {"model.backbone": "resnet101"},
    "x101": {"model.backbone": "resnext101_64x4d"},
    "r50_500": {"pipeline.min_side": 500, "pipeline.max_side": 833},
    "lsj": {
        "augmentation.scale_jitter": (0.1, 2.0),
        "pipeline.min_side": 1024,
        "pipeline.max_side": 1024,
        "train.steps": 270_000,
    },
} | RECIPES

MODERN = {
    "pipeline.min_side": 1024,
    "pipeline.max_side": 1024,
    "augmentation.scale_jitter": (0.1, 2.0),
    "model.pretrained": "imagenet_v2",
    "model.norm": "batch",
    "model.head_norm": "group",
    "anchors.scales": (1.0,),
    "anchors.ratios": (1.0,),
    "anchors.size": 8.0,
    "anchors.center": 0.5,
    "matching.assigner": "atss",
    "loss.classification": "quality_focal",
    "loss.box": "giou",
    "loss.box_weight": 2.0,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.weight_decay": 0.05,
    "optimizer.decay": "kernels",
    "optimizer.schedule": "cosine",
    "optimizer.gradient_clip": 10.0,
    "optimizer.ema_decay": 0.9998,
    "train.steps": 369_650,
}
VARIANTS |= {"modern": MODERN, "modern_long": MODERN | {"train.steps": 739_300}}


def get_config(variant: str = "") -> ConfigDict:
    """The variants are listed above; every field can be set on the command line."""
    config = default_config()
    config.data.name = "coco"
    config.data.train_split = "train"
    config.data.eval_split = "validation"
    config.model.backbone = "resnet50"
    config.model.pretrained = "imagenet"
    config.model.norm = "auto"
    config.model.frozen_stages = "auto"
    config.model.dtype = "bfloat16"
    config.train.evaluate_every = 10_000
    config.update_from_flattened_dict(choose_variant(VARIANTS, variant))
    return config
