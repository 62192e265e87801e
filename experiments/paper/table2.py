"""Table 2: the best models of the paper, with a 1.5 times longer schedule and scale jitter.

Published (test-dev): AP 39.1 with ResNet-101-FPN, 40.8 with ResNeXt-101-FPN (32x8d). 800 pixels,
135k updates. The paper does not state the range of the jitter; here it is detectron2's: short sides
from 640 to 800. `small` uses ResNet-18 and ResNeXt-50.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["2"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table2.py --workdir=runs/table2 \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table2.py:small \\
        --workdir=runs/table2_small \\
        --config.model.backbone=resnext50_32x4d
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("2", variant)
