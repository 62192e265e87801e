"""Recipes: complete, valid, and the facts in which the projects differ."""

import numpy as np
import pytest

from retinanet_jax.anchors import anchors_for_image
from retinanet_jax.config import default_config, from_config_dict
from retinanet_jax.models import normalize
from retinanet_jax.recipes import RECIPES, with_recipe


def config_of(name):
    return from_config_dict(with_recipe(default_config(), name, model__pretrained="file"))


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipes_name_the_same_fields_and_are_valid(name):
    assert set(RECIPES[name]) == set(RECIPES["detectron2"])
    config = config_of(name)
    assert config.anchors.anchors_per_location == 9 and config.pipeline.eval_canvas == "tight"


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
    picture = np.full((1, 1, 1, 3), (200, 100, 50), np.uint8)
    torchvision, detectron2, mmdetection = (
        np.asarray(normalize(picture, config_of(name).pixels))[0, 0, 0]
        for name in ("torchvision_v1", "detectron2", "mmdetection")
    )
    np.testing.assert_allclose(detectron2, [50 - 103.53, 100 - 116.28, 200 - 123.675], rtol=1e-6)
    np.testing.assert_allclose(torchvision, mmdetection, rtol=1e-5)


def test_own_fields_come_last_and_names_are_checked():
    tree = with_recipe(default_config(), "mmdetection", postprocess__max_detections=7)
    assert tree.postprocess.max_detections == 7 and not tree.model.relu_before_p7
    assert default_config().model.relu_before_p7
    with pytest.raises(ValueError, match="recipe: 'detectron' is not one of torchvision_v1"):
        with_recipe(default_config(), "detectron")
