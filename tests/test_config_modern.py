"""The variants `modern` of COCO and of a folder train in bfloat16."""

import json

import numpy as np
import pytest

from retinanet_jax.config.experiment_files import load_experiment
from retinanet_jax.config.settings import from_config_dict
from retinanet_jax.training.run import train_and_evaluate

SMALL = {
    "data.name": "shapes",
    "data.eval_split": "validation",
    "data.shapes.image_size": (64, 64),
    "data.shapes.num_eval": 2,
    "pipeline.min_side": 64,
    "pipeline.max_side": 64,
    "model.backbone": "resnet18",
    "model.pretrained": "none",
    "model.norm": "batch",
    "model.backbone_levels": (3,),
    "model.max_level": 4,
    "model.fpn_channels": 32,
    "model.head_channels": 32,
    "model.head_depth": 1,
    "model.dtype": "bfloat16",
    "anchors.size": 2.0,
    "optimizer.warmup_steps": 1,
    "train.steps": 4,
    "train.batch_size": 4,
    "train.log_every": 1,
    "train.evaluate_every": "none",
    "train.loggers": (),
    "evaluation.batch_size": 2,
    "evaluation.example_images": 0,
}


@pytest.mark.extended
@pytest.mark.parametrize("name", ["coco:modern", "folder:modern"])
def test_modern_trains_without_nan(name, tmp_path):
    tree = load_experiment(name)
    tree.update_from_flattened_dict(SMALL)
    config = from_config_dict(tree)
    assert config.matching.assigner == "atss" and config.anchors.anchors_per_location == 1
    train_and_evaluate(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in train] == [1, 2, 3, 4]
    assert np.isfinite([[line["loss"], line["gradient_norm"]] for line in train]).all()
    assert not any(line["skipped"] for line in train)
    assert max(line["positives"] for line in train) > 1


def test_one_anchor_a_location():
    """Of 8 strides, as in ATSS: 64 pixels on P3, in the middle of its cell."""
    from retinanet_jax.core.anchors import anchors_for_image

    config = from_config_dict(load_experiment("coco:modern"))
    levels = anchors_for_image((1024, 1024), config.anchors)
    assert [len(level) for level in levels] == [128**2, 64**2, 32**2, 16**2, 8**2]
    np.testing.assert_array_equal(levels[0][:2], [[-28, -28, 36, 36], [-20, -28, 44, 36]])


@pytest.mark.parametrize("name", ["coco:modern", "folder:modern"])
def test_quality_focal_loss_with_the_exponent_of_its_paper(name):
    """folder:modern starts from folder:small, whose gamma is that of a focal loss."""
    loss = load_experiment(name).loss
    assert (loss.classification, loss.gamma) == ("quality_focal", 2.0)
