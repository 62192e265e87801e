"""Section 5.1: the prior probability of objects at the start of training, with cross entropy.

ResNet-50, 600 pixels, gamma 0, alpha .5. Published (minival): AP 30.2 with a prior of .01, the
base; without it (.5) training diverges.

Variants: none, on COCO 2017, with data and ImageNet weights as for experiments/coco.py; small, on
the built-in dataset in minutes on a CPU. All trials, with the paper's numbers, are TABLES["prior"]
of retinanet_jax/config/paper_tables.py.

Commands, for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/prior.py --workdir=runs/prior \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/prior.py:small \\
        --workdir=runs/prior_small \\
        --config.model.prior=0.5
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("prior", variant)
