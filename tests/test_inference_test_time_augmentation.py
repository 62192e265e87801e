"""Test-time augmentation: the sizes of its views."""

import numpy as np
import pytest

from retinanet_jax.data.pipeline.batch import without_objects
from retinanet_jax.data.pipeline.canvas import PipelineConfig
from retinanet_jax.inference.test_time_augmentation import View, scaled, see


@pytest.mark.parametrize(
    ("size", "scale", "seen"),
    [
        ((100, 120), 1.0, (64, 77)),  # by the short side: 64
        ((100, 120), 2.0, (128, 154)),
        ((100, 300), 1.0, (32, 96)),  # by the long side: 96
        ((100, 300), 2.0, (64, 192)),
        ((100, 300), 0.5, (16, 48)),
    ],
)
def test_a_scale_multiplies_both_limits_of_the_size(size, scale, seen):
    settings = PipelineConfig(min_side=64, max_side=96)
    view = View(scale)
    example = see(without_objects(np.zeros((*size, 3), np.uint8)), view, scaled(settings, view))
    assert example.image.shape[:2] == seen
