"""Pascal VOC: trained on 2007 trainval and 2012 trainval, evaluated on 2007 test.

Source: the usual "07+12" protocol, with the settings of `experiments/coco.py:flips`, a schedule
shortened to 17 epochs of the 16,551 images, and 600 pixels as in the paper's ablations (section 4).
AP is VOC's at an IoU of .5, 11-point (2007) and all-point (2010 and later). The paper reports no
VOC results, and none have been measured here yet.

Data: the TFDS datasets `voc/2007` and `voc/2012` in config.data.root. They are prepared from VOC's
archives or extracted files in VOC/; --download first downloads the archives to that folder (3 GB):
    retinanet-jax prepare --dataset=voc --source=VOC --data_dir=TFDS [--download]
For a single year, set --config.data.name=voc2007 (splits train, validation, trainval, test) or
voc2012 (train, validation, trainval), and --config.data.train_split=trainval.
Weights: model.pretrained='imagenet', as in experiments/coco.py.

Command:
    python -m retinanet_jax.main --config=experiments/voc.py --workdir=runs/voc \\
        --config.data.root=TFDS
"""

from ml_collections import ConfigDict

from retinanet_jax.config.experiment_files import choose_variant
from retinanet_jax.config.settings import default_config


def get_config(variant: str = "") -> ConfigDict:
    """'' is ResNet-50; 'r101' the deeper one."""
    config = default_config()
    config.data.name = "voc"
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.pipeline.min_side, config.pipeline.max_side = 600, 1000
    config.model.backbone = choose_variant({"": "resnet50", "r101": "resnet101"}, variant)
    config.model.pretrained = "imagenet"
    config.model.norm = "auto"
    config.model.frozen_stages = "auto"
    config.model.dtype = "bfloat16"
    config.train.steps = 18_000
    config.train.checkpoint_every = 2_000
    config.evaluation.metric = "voc"
    return config
