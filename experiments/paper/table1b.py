"""Table 1b: the focusing parameter gamma, each with its best alpha.

ResNet-50, 600 pixels. Published (minival): AP 31.1 for cross entropy (gamma 0, alpha .75), 34.0 at
gamma 2 and alpha .25 (the best and the base), 32.2 at gamma 5.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["1b"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1b.py --workdir=runs/table1b \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table1b.py:small \\
        --workdir=runs/table1b_small \\
        --config.loss.gamma=0 --config.loss.alpha=0.75
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1b", variant)
