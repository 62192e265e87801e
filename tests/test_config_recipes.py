"""Recipes: complete, valid, and the facts in which the projects differ."""

import numpy as np
import pytest

from retinanet_jax.config.recipes import RECIPES, with_recipe
from retinanet_jax.config.settings import default_config, from_config_dict
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.box_losses import smooth_l1
from retinanet_jax.core.layers import normalize


def config_of(name):
    return from_config_dict(with_recipe(default_config(), name, model__pretrained="file"))


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_name_the_same_fields_and_are_valid(name):
    assert set(RECIPES[name]) == set(RECIPES["detectron2"])
    config = config_of(name)
    assert config.anchors.anchors_per_location == 9
    assert (config.pipeline.eval_canvas == "tight") == (name != "tf_vision")


# What the projects do differently, a line for each question, in the order of NAMES.
NAMES = ("paper", "detectron2", "torchvision_v1", "torchvision_v2", "mmdetection", "tf_vision")
DIFFERENCES = {
    "pipeline.min_side": (800, 800, 800, 800, 800, 640),
    "pipeline.pad_multiple": (128, 32, 32, 32, 32, 128),
    "pixels.order": ("bgr", "bgr", "rgb", "rgb", "rgb", "rgb"),
    "model.stride_on": ("1x1", "1x1", "3x3", "3x3", "3x3", "3x3"),
    "model.norm": (
        "frozen_batch",
        "frozen_batch",
        "frozen_batch",
        "batch",
        "frozen_batch",
        "batch",
    ),
    "model.frozen_stages": (2, 2, 2, 2, 2, 0),
    "model.norm_epsilon": (1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-3),
    "model.norm_momentum": (0.1, 0.1, 0.1, 0.1, 0.1, 0.01),
    "model.output_std": (0.01, 0.01, 0.01, 0.01, 0.01, 1e-5),
    "model.extra_levels_from": ("backbone", "backbone", "fpn", "backbone", "backbone", "fpn"),
    "model.relu_before_p7": (True, True, True, True, False, True),
    "model.head_norm": ("none", "none", "none", "group", "none", "none"),
    "anchors.order": (
        "scale_major",
        "scale_major",
        "ratio_major",
        "ratio_major",
        "ratio_major",
        "scale_major",
    ),
    "anchors.center": (0.5, 0, 0, 0, 0, 0.5),
    "anchors.rounding": ("none", "none", "torchvision", "torchvision", "none", "none"),
    "postprocess.clamp_both_sides": (False, False, False, False, True, False),
    "matching.negative_iou": (0.4, 0.4, 0.4, 0.4, 0.4, 0.5),
    "matching.low_quality": (
        "own_box",
        "own_box",
        "own_box",
        "own_box",
        "that_box",
        "one_anchor",
    ),
    "matching.low_quality_min_iou": (0.4, 0, 0, 0, 0, 0),
    "matching.crowd_ioa": (None,) * 6,
    "loss.normalizer": (
        "batch",
        "running",
        "image",
        "image",
        "images_or_one",
        "batch_plus_one",
    ),
    "loss.box": ("smooth_l1", "l1", "l1", "giou", "l1", "smooth_l1"),
    "loss.gamma": (2, 2, 2, 2, 2, 1.5),
    "optimizer.name": ("sgd", "sgd", "sgd", "adamw", "sgd", "sgd"),
    "optimizer.learning_rate": (0.01, 0.01, 0.01, 1e-4, 0.01, 0.32),
    "optimizer.decay": ("all", "all", "all", "kernels", "all", "kernels"),
    "optimizer.warmup_steps": (500, 1000, 1000, 1000, 500, 500),
    "train.batch_size": (16, 16, 16, 16, 16, 256),
    "train.steps": (90_000, 90_000, 190_580, 190_580, 87_960, 33_264),
    "augmentation.flip": (True,) * 6,
    "augmentation.scale_jitter": ((1, 1),) * 5 + ((0.8, 1.2),),
    "postprocess.pre_nms_top_k": (1000, 1000, 1000, 1000, 1000, 5000),
    "postprocess.max_detections": (100, 100, 300, 300, 100, 100),
}


@pytest.mark.parametrize("field", list(DIFFERENCES))
def test_the_projects_differ_as_they_do(field):
    section, name = field.split(".")
    found = tuple(getattr(getattr(config_of(recipe), section), name) for recipe in NAMES)
    assert found == DIFFERENCES[field]


def test_rates_fall_where_the_projects_say():
    at = {"paper": (60_000, 80_000), "torchvision_v1": (16 * 7330, 22 * 7330)}
    at |= {"mmdetection": (8 * 7330, 11 * 7330), "tf_vision": (57 * 462, 67 * 462)}
    for name, steps in at.items():
        config = config_of(name)
        assert [round(x * config.train.steps) for x in config.optimizer.decay_at] == list(steps)


def test_multi_scale_training():
    scales = {name: config_of(name).augmentation.scales for name in NAMES}
    assert scales["detectron2"] == (640, 672, 704, 736, 768, 800)
    assert (scales["torchvision_v2"][0], len(scales["torchvision_v2"])) == (480, 11)
    assert not any(scales[name] for name in ("paper", "torchvision_v1", "mmdetection"))


def test_tensorflows_box_loss_is_fifty_hubers_averaged_over_a_box():
    """Keras' Huber: d^2 / 2 up to delta, then delta (d - delta / 2); the mean of the last axis."""
    config = config_of("tf_vision").loss
    deltas = np.float32([0.02, -0.3, 1.5, 0.07])
    d = np.abs(deltas)
    huber = np.where(d <= 0.1, d**2 / 2, 0.1 * (d - 0.05)).mean()
    ours = config.box_weight * smooth_l1(deltas, np.zeros(4, np.float32), config.beta).sum()
    assert float(ours) == pytest.approx(50 * huber, rel=1e-5)


def test_a_part_of_a_recipe():
    whole = with_recipe(default_config(), "detectron2")
    some = with_recipe(whole, "mmdetection", only=("matching", "model"))
    assert some.matching.low_quality == "that_box" and not some.model.relu_before_p7
    assert some.anchors.order == "scale_major" and some.loss.normalizer == "running"
    assert with_recipe(some, "detectron2", only=("matching", "model")) == whole
    with pytest.raises(ValueError, match=r"only: \['losses'\] are not among pipeline, pixels"):
        with_recipe(whole, "mmdetection", only=("losses",))


def test_without_pretrained_weights_no_norm_and_no_stage_is_frozen():
    config = from_config_dict(with_recipe(default_config(), "detectron2"))
    assert (config.model.norm, config.model.frozen_stages) == ("batch", 0)


def test_first_anchors_and_strides():
    """torchvision rounds (-22.63, -11.31, ...) and spreads P7 over the image: 800 // 7 = 114."""
    anchors = {name: anchors_for_image((800, 1344), config_of(name).anchors) for name in RECIPES}
    np.testing.assert_array_equal(anchors["torchvision_v1"][0][0], [-23, -11, 23, 11])
    exact = [-22.627417, -11.313708, 22.627417, 11.313708]
    for name in ("detectron2", "mmdetection"):
        np.testing.assert_allclose(anchors[name][0][0], exact, rtol=1e-6)
        assert anchors[name][4][9].tolist() == (anchors[name][4][0] + [128, 0, 128, 0]).tolist()
    steps = anchors["torchvision_v2"][4].reshape(7, 11, 9, 4)
    assert (steps[1, 0] - steps[0, 0])[0, 1] == 114 and (steps[0, 1] - steps[0, 0])[0, 0] == 122
    # The second anchor has the second ratio, or the second scale.
    width, height = 32, 32
    np.testing.assert_allclose(anchors["detectron2"][0][1], [-16, -16, width / 2, height / 2])
    np.testing.assert_allclose(anchors["mmdetection"][0][1], np.array(exact) * 2 ** (1 / 3))


def test_pixels():
    image = np.full((1, 1, 1, 3), (200, 100, 50), np.uint8)
    torchvision, detectron2, mmdetection = (
        np.asarray(normalize(image, config_of(name).pixels))[0, 0, 0]
        for name in ("torchvision_v1", "detectron2", "mmdetection")
    )
    np.testing.assert_allclose(detectron2, [50 - 103.53, 100 - 116.28, 200 - 123.675], rtol=1e-6)
    np.testing.assert_allclose(torchvision, mmdetection, rtol=1e-5)


def test_own_fields_come_last_and_names_are_checked():
    tree = with_recipe(default_config(), "mmdetection", postprocess__max_detections=7)
    assert tree.postprocess.max_detections == 7 and not tree.model.relu_before_p7
    assert default_config().model.relu_before_p7
    with pytest.raises(ValueError, match="recipe: 'detectron' is not one of paper, detectron2"):
        with_recipe(default_config(), "detectron")
