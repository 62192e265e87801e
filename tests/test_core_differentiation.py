"""Forward mode and Hessian-vector products of the network and its loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core.anchors import AnchorConfig, anchors_for_image, feature_shapes
from retinanet_jax.core.assignment import assign_batch
from retinanet_jax.core.cpu.convolution import convolve
from retinanet_jax.core.differentiation import any_derivative
from retinanet_jax.core.initialization import Initializer
from retinanet_jax.core.layers import relu
from retinanet_jax.core.loss import retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.matching import MatchingConfig
from retinanet_jax.core.retinanet import ModelConfig, build_model

CANVAS = (32, 32)


@pytest.fixture(scope="module")
def detector_loss():
    """(loss of the parameters, parameters) of a network up to C2 on two images of noise."""
    sizes = {"backbone_levels": (2,), "max_level": 3, "fpn_channels": 8, "head_channels": 8}
    config = ModelConfig("resnet18", norm="group", frozen_stages=0, head_depth=1, **sizes)
    anchor_config = AnchorConfig(2, 3, scales=(1.0,))
    anchors = anchors_for_image(CANVAS, anchor_config)
    boxes = np.float32([[[2, 3, 20, 21], [0, 0, 0, 0]], [[8, 8, 31, 20], [4, 1, 12, 30]]])
    labels = np.int32([[1, -1], [0, 2]])
    crowd = np.zeros((2, 2), bool)
    targets = assign_batch(np.concatenate(anchors), boxes, labels, crowd, MatchingConfig())
    images = np.random.default_rng(0).standard_normal((2, *CANVAS, 3)).astype(np.float32)
    model = build_model(config, 3, anchor_config.anchors_per_location)
    initializer = Initializer(model)
    params = jax.jit(initializer.variables)(initializer.draw(0))["params"]
    grids = tuple(feature_shapes(CANVAS, anchor_config))

    def loss(params):
        predictions = model.apply({"params": params}, images, train=True)
        valid = np.ones(2, bool)
        return retinanet_loss(
            *predictions, anchors, targets, valid, LossConfig(), grids=grids
        ).total

    return loss, params


def inner(one, other):
    products = jax.tree.map(lambda x, y: np.vdot(np.float64(x), np.float64(y)), one, other)
    return sum(jax.tree.leaves(products))


@pytest.mark.extended
def test_derivatives_of_the_network_agree_with_differences(detector_loss):
    """The differences are of the training step's own gradients, which know no forward mode.

    They are taken along the outputs of the heads: along other layers, each ReLU that changes its
    side would add a jump of the gradient. For the other layers, the Hessian is symmetric.
    """
    loss, params = detector_loss
    gradient = jax.jit(jax.grad(loss))
    rng = np.random.default_rng(1)
    vector = jax.tree.map(lambda p: 0.1 * rng.standard_normal(p.shape).astype(np.float32), params)
    outputs = jax.tree_util.tree_map_with_path(
        lambda path, v: v * ("output" in {entry.key for entry in path}), vector
    )

    def derivatives(params, vector):
        return jax.jvp(jax.value_and_grad(loss), (params,), (vector,))[1]

    with any_derivative():
        derivatives = jax.jit(derivatives)
        slope, product = derivatives(params, vector)
        _, product_of_outputs = derivatives(params, outputs)
    assert np.isclose(slope, inner(gradient(params), vector), rtol=1e-3)
    assert np.isclose(inner(vector, product_of_outputs), inner(outputs, product), rtol=1e-3)

    step = 0.01
    ahead = gradient(jax.tree.map(lambda p, v: p + step * v, params, outputs))
    behind = gradient(jax.tree.map(lambda p, v: p - step * v, params, outputs))
    differences = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
    error = jax.tree.map(np.subtract, product_of_outputs, differences)
    assert inner(error, error) < 0.01**2 * inner(differences, differences)


def test_without_the_context_forward_mode_raises(detector_loss):
    loss, params = detector_loss
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(loss, (params,), (params,))


@pytest.mark.parametrize("float32_result", [False, True])
def test_a_convolution_is_linear_in_each_argument(float32_result):
    rng = np.random.default_rng(0)
    shapes = (1, 5, 6, 2), (3, 3, 2, 4)
    x, kernel, dx, dkernel = (rng.integers(-4, 5, shape) for shape in shapes * 2)
    as_type = jnp.bfloat16 if float32_result else jnp.float32

    def function(x, kernel):
        return convolve(x, kernel, stride=2, float32_result=float32_result)

    arguments = [jnp.asarray(value, as_type) for value in (x, kernel, dx, dkernel)]
    with any_derivative():
        value, slope = jax.jvp(function, arguments[:2], arguments[2:])
    assert value.dtype == slope.dtype == jnp.float32
    np.testing.assert_array_equal(slope, direct(dx, kernel) + direct(x, dkernel))


def direct(x, kernel):
    """Stride 2, padded by 1, of whole numbers."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2]
    return np.einsum("bhwcij,ijcd->bhwd", windows, kernel)


def test_relu_in_both_modes():
    x = jnp.float32([-2, 0, 3])
    value, slope = jax.jvp(relu, (x,), (jnp.float32([5, 6, 7]),))
    np.testing.assert_array_equal(value, [0, 0, 3])
    np.testing.assert_array_equal(slope, [0, 0, 7])
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.vdot(relu(x), x))(x), [0, 0, 6])
