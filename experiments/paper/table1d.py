"""Table 1d: focal loss and hard example mining, with and without a quota of 1:3.

ResNet-101, 600 pixels. As published, on minival: AP 32.8 for the best OHEM (128 anchors of an image
after NMS at .5), 36.0 for focal loss, the base. That the mined loss is cross entropy, that the
anchors are counted by image, and that the sum over them is divided by the positives, are choices of
this package; the paper does not say. core/hard_examples.py says how anchors are chosen.

Variants: none, on COCO 2017 (data and weights as for experiments/coco.py); small, on the built-in
dataset in minutes on a CPU. All trials, with the paper's numbers, are TABLES["1d"] of
retinanet_jax/config/paper_tables.py.

Commands, for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1d.py --workdir=runs/table1d \\
        --config.data.root=TFDS --config.model.pretrained=resnet101.safetensors
    python -m retinanet_jax.main --config=experiments/paper/table1d.py:small \\
        --workdir=runs/table1d \\
        --config.loss.classification=cross_entropy --config.loss.alpha=none \\
        --config.loss.hard_examples=128 --config.loss.hard_examples_iou=0.5
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_tables import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1d", variant)
