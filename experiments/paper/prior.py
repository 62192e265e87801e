"""Section 5.1: the prior probability of objects at the start of training, with cross entropy.

ResNet-50, 600 pixels, gamma 0, alpha .5. Published (minival): AP 30.2 with a prior of .01 (the
base); without the prior (.5), training diverges.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["prior"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
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
