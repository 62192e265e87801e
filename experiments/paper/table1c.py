"""Table 1c: anchors per location, scales times aspect ratios.

ResNet-50, 600 pixels. Published (minival): AP 30.3 with one square anchor, 34.2 with two scales and
three ratios, 34.0 with three of each (the base).

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["1c"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1c.py --workdir=runs/table1c \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table1c.py:small \\
        --workdir=runs/table1c_small \\
        --config.anchors.scales='(1.0, 1.41421356)'
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1c", variant)
