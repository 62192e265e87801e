"""Table 3, appendix A: FL*, a similar loss with its own gamma and beta.

ResNet-50, 600 pixels. Published (minival): AP 33.8 at gamma 2 and beta 1, 33.9 at gamma 4 and beta
0; focal loss (the base) 34.0, cross entropy 31.1. The paper does not state the alpha of FL*; here
it is .25, as for focal loss.

Variants: without a variant, it runs on COCO 2017, with the data and ImageNet weights of
experiments/coco.py; small runs on the built-in dataset in minutes on a CPU. TABLES["3"] in
retinanet_jax/config/paper_tables.py has all trials with the paper's numbers.

Commands for the base and for another trial:
    python -m retinanet_jax.main --config=experiments/paper/table3.py --workdir=runs/table3 \\
        --config.data.root=TFDS
    python -m retinanet_jax.main --config=experiments/paper/table3.py:small \\
        --workdir=runs/table3_small \\
        --config.loss.classification=focal_star --config.loss.gamma=4 \\
        --config.loss.star_beta=0
"""

from ml_collections import ConfigDict

from retinanet_jax.config.paper_base import base_config


def get_config(variant: str = "") -> ConfigDict:
    """'' as published, 'small' on the built-in dataset."""
    return base_config("3", variant)
