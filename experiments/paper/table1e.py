"""Table 1e: accuracy and time, by depth of the network and size of the images.

Published (test-dev): AP 30.5 in 64 ms (ResNet-50, 400 pixels) to 37.8 in 198 ms (ResNet-101, 800
pixels) on an M40 GPU. The base is ResNet-50 at 600 pixels. `small` uses ResNet-18 and ResNet-34 on
images of 64 to 128 pixels.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["1e"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1e.py --workdir=runs/table1e \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table1e.py:small \\
        --workdir=runs/table1e_small \\
        --config.model.backbone=resnet34 --config.pipeline.min_side=128 \\
        --config.pipeline.max_side=128
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1e", variant)
