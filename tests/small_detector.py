"""The smallest Detector that detects something."""

from golden_models import random_variables
from small import small_config

from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.records import Categories
from retinanet_jax.inference.detector import Detector

TALL, WIDE = (96, 64), (64, 96)  # of its images: they are not resized
CATEGORIES = Categories(("ant", "bee", "cat", "dog", "elk"), (3, 5, 7, 11, 13))


def small_network():
    """Variables, config and categories of a random network on two canvases.

    It detects up to 100 objects of different scores in an image.
    """
    config = small_config(pipeline__min_side=64, pipeline__max_side=96)
    variables = random_variables(build_model(config.model, 5, config.anchors.anchors_per_location))
    # Unscaled, every score is 0 or 1 and boxes are huge.
    for head, factor, bias in (("class_head", 0.04, -3.0), ("box_head", 0.006, 0.0)):
        output = variables["params"][head]["output"]
        output["kernel"], output["bias"] = factor * output["kernel"], 0 * output["bias"] + bias
    return variables, config, CATEGORIES


def small_detector(batch_size: int = 1) -> Detector:
    """The network as a Detector."""
    return Detector(*small_network(), batch_size=batch_size)
