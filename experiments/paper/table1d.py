"""Table 1d: focal loss and hard example mining, with and without a quota of 1:3.

ResNet-101, 600 pixels. Published (minival): AP 32.8 for the best OHEM (128 anchors per image after
NMS at .5), 36.0 for focal loss (the base). The paper does not define the mined loss; here it is
cross entropy, anchors are counted per image, and their sum is divided by the number of positives.
core/hard_examples.py defines the selection.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["1d"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1d.py --workdir=runs/table1d \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table1d.py:small \\
        --workdir=runs/table1d_small \\
        --config.loss.classification=cross_entropy --config.loss.alpha=none \\
        --config.loss.hard_examples=128 --config.loss.hard_examples_iou=0.5
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1d", variant)
