"""Table 1a: cross entropy weighted by alpha.

ResNet-50, 600 pixels, gamma 0. Published (minival): AP 0.0 at alpha .10, 10.8 at .25, 30.2 at
.50, 31.1 at .75 (the best), falling to 25.1 at .999.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["1a"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table1a.py --workdir=runs/table1a \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table1a.py:small \\
        --workdir=runs/table1a_small \\
        --config.loss.alpha=0.75
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("1a", variant)
