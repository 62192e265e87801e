"""Layers and backbones: torchvision's numbers, torch's conventions, what is frozen."""

import functools
import subprocess
import sys

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from quick import xla_flags

from retinanet_jax.core.backbones import BACKBONES
from retinanet_jax.core.layers import Conv, PixelConfig, max_pool, normalize
from retinanet_jax.core.norms import Norm, convolve_and_norm
from retinanet_jax.core.resnet import ARCHITECTURES, Architecture, Bottleneck, ResNet
from retinanet_jax.core.retinanet import ModelConfig
from retinanet_jax.weights import WeightsError, backbone_from_torchvision


def random_images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def as_backbone(variables):
    """A ResNet's own variables as the backbone of a detector's."""
    return {collection: {"backbone": tree} for collection, tree in variables.items()}


def as_resnet(variables):
    return {collection: tree["backbone"] for collection, tree in variables.items()}


# MMDetection and timm have weights of the other one, torchvision has not.
TORCHVISION = [name for name in ARCHITECTURES if name != "resnext101_32x4d"]
DEEP = {"resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"}  # more of the same blocks


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in DEEP)) for name in TORCHVISION],
)
def test_backbone_equals_torchvision(golden_dir, name):
    golden = np.load(golden_dir / "backbones.npz")
    state = golden_models.state_dict(golden_dir, name)
    model = ResNet(name)
    empty = as_backbone(golden_models.empty_variables(model))
    variables = as_resnet(backbone_from_torchvision(state, empty).variables)
    images = normalize(golden["image"][None], PixelConfig())
    levels = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    for level, feature in levels.items():
        golden_models.assert_close(golden, f"{name}/C{level}", feature)
    logits = np.asarray(levels[5]).mean((1, 2)) @ state["fc.weight"].T + state["fc.bias"]
    # The errors of C5's channels add up as independent ones do.
    gain = np.linalg.norm(state["fc.weight"], axis=1).max()
    allowed = 6 * golden[f"{name}/C5/f32_err"] * gain
    np.testing.assert_allclose(logits[0], golden[f"{name}/logits"], rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (10, 7, 2), (8, 1, 2)]
)
def test_convolution_pads_as_torch(size, kernel, stride):
    """Output pixel (i, j) looks at the input around (i * stride, j * stride), zeros outside."""
    x = random_images(1, size, size, 2)
    layer = Conv(3, kernel, stride=stride)
    variables = layer.init(jax.random.key(0), x)
    padded = np.pad(x[0], ((kernel // 2,) * 2,) * 2 + ((0, 0),))
    weights = np.asarray(variables["params"]["kernel"])
    for i, j in ((0, 0), (1, 2), (-(-size // 2) - 1,) * 2):
        window = padded[i * stride : i * stride + kernel, j * stride : j * stride + kernel]
        wanted = np.einsum("hwc,hwco->o", window, weights)
        np.testing.assert_allclose(layer.apply(variables, x)[0, i, j], wanted, atol=1e-5)
    assert layer.apply(variables, x).shape == (1, -(-size // 2), -(-size // 2), 3)


def test_max_pool_pads_with_minus_infinity_on_both_sides():
    x = jnp.arange(-16.0, 0.0).reshape(1, 4, 4, 1)
    # windows start at -1: rows {0, 1} and {1, 2, 3}; zeros outside would win over every value
    np.testing.assert_array_equal(max_pool(x)[0, :, :, 0], [[-11.0, -9.0], [-3.0, -1.0]])


def test_stride_on_the_first_1x1_is_the_unstrided_block_on_every_second_pixel():
    parts = {"conv": Conv, "norm": functools.partial(Norm, kind="frozen_batch")}
    options = {"planes": 64, "architecture": Architecture((1, 1, 1, 1)), "stride_on": "1x1"}
    strided = Bottleneck(stride=2, **options, **parts)
    x = random_images(1, 9, 8, 64)
    variables = strided.init(jax.random.key(0), x, train=False)
    unstrided = Bottleneck(stride=1, **options, **parts)
    np.testing.assert_allclose(
        strided.apply(variables, x, train=False),
        unstrided.apply(variables, x[:, ::2, ::2], train=False),
        atol=1e-5,
    )
    on_3x3 = Bottleneck(stride=2, **(options | {"stride_on": "3x3"}), **parts)
    difference = on_3x3.apply(variables, x, train=False) - strided.apply(variables, x, train=False)
    assert np.abs(difference).max() > 0.1


def norm_and_variables(kind, x, seed=1):
    """A Norm of kind with parameters and statistics that are not the trivial ones."""
    rng = np.random.default_rng(seed)
    layer = Norm(x.shape[-1], kind)
    variables = layer.init(jax.random.key(0), x, train=False)
    return layer, jax.tree.map(lambda leaf: rng.uniform(0.5, 2.0, leaf.shape), variables)


@pytest.mark.parametrize("kind", ["frozen_batch", "batch"])
def test_running_statistics_normalise_outside_of_training(kind):
    x = random_images(2, 3, 4, 5)
    layer, variables = norm_and_variables(kind, x)
    p, s = variables["params"], variables["batch_stats"]
    wanted = (x - s["mean"]) / np.sqrt(s["var"] + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(layer.apply(variables, x, train=False), wanted, atol=1e-5)


def test_live_batch_norm_uses_the_batch_and_follows_with_the_unbiased_variance():
    x = 3 + 2 * random_images(2, 3, 4, 5)
    layer, variables = norm_and_variables("batch", x)
    y, updated = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    p, s, new = variables["params"], variables["batch_stats"], updated["batch_stats"]
    axes = (0, 1, 2)
    wanted = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5) * p["scale"] + p["bias"]
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_allclose(new["mean"], 0.9 * s["mean"] + 0.1 * x.mean(axes), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.9 * s["var"] + 0.1 * x.var(axes, ddof=1), rtol=1e-5)


def test_every_norm_has_the_momentum_and_the_epsilon_of_the_config():
    config = ModelConfig(norm="batch", norm_momentum=0.3, norm_epsilon=1e-3, frozen_stages=0)
    seen = set()

    def look(call, arguments, named, context):
        if isinstance(context.module, Norm):
            seen.add((context.module.momentum, context.module.epsilon))
        return call(*arguments, **named)

    with nn.intercept_methods(look):
        images, model = jnp.zeros((1, 64, 64, 3)), BACKBONES["resnet18"](config)
        jax.eval_shape(lambda key: model.init(key, images, train=True), jax.random.key(0))
    assert seen == {(0.3, 1e-3)}


def test_statistics_are_exact_far_from_zero():
    x = 1000 + random_images(2, 16, 16, 64)
    for kind in ("batch", "group"):
        layer = Norm(64, kind)
        variables = layer.init(jax.random.key(0), x, train=False)
        y = layer.apply(variables, x, train=True, mutable=["batch_stats"])[0]
        np.testing.assert_allclose(np.std(y), 1, atol=0.01)


def test_group_norm_is_per_image_and_group():
    x = random_images(2, 3, 4, 64) * 3 + 1
    layer, variables = norm_and_variables("group", x)
    assert set(variables) == {"params"}
    groups = x.reshape(2, 3, 4, 32, 2)
    centred = groups - groups.mean((1, 2, 4), keepdims=True)
    unit = centred / np.sqrt(groups.var((1, 2, 4), keepdims=True) + 1e-5)
    wanted = unit.reshape(x.shape) * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(layer.apply(variables, x, train=False), wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["frozen_batch", "batch", "group"])
def test_bfloat16_norms_compute_in_float32(kind):
    x = random_images(2, 4, 4, 64).astype(jnp.bfloat16)
    exact = Norm(64, kind)
    variables = exact.init(jax.random.key(0), x, train=False)
    wanted = exact.apply(variables, x, train=True, mutable=["batch_stats"])[0]
    half = Norm(64, kind, dtype=jnp.bfloat16)
    y, _ = half.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16 and wanted.dtype == jnp.float32
    np.testing.assert_array_equal(y, wanted.astype(jnp.bfloat16))


def accelerators_branch(*arguments, default, **of_platforms):
    """`jax.lax.platform_dependent` on a GPU, computed here."""
    return default(*arguments)


@pytest.mark.parametrize("kind", ["frozen_batch", "batch"])
def test_a_folded_norm_gives_the_numbers_and_gradients_of_a_separate_one(kind, monkeypatch):
    rng = np.random.default_rng(0)
    conv, norm = Conv(64, 3), Norm(64, kind)
    x = random_images(2, 6, 5, 8)
    kernel = conv.init(jax.random.key(0), x)
    constants = norm.init(jax.random.key(0), random_images(1, 1, 1, 64), train=False)
    constants = jax.tree.map(lambda leaf: rng.uniform(0.5, 2.0, leaf.shape), constants)

    class Both(nn.Module):
        def setup(self):
            self.conv, self.norm = conv.clone(), norm.clone()

        def __call__(self, x):
            return convolve_and_norm(self.conv, self.norm, x, train=False)

    merged = {k: {"norm": v} for k, v in constants.items()}
    merged["params"]["conv"] = kernel["params"]

    def separate(params, x):
        y = conv.apply({"params": params["conv"]}, x)
        return norm.apply(constants | {"params": params["norm"]}, y, train=False)

    def results(function):
        return function(merged["params"], x), jax.grad(
            lambda *arguments: jnp.sum(jnp.sin(function(*arguments))), (0, 1)
        )(merged["params"], x)

    def folded(params, x):
        return Both().apply(merged | {"params": params}, x)

    wanted = results(separate)
    trained = [bool(np.any(g)) for g in jax.tree.leaves(wanted[1][0]["norm"])]
    assert trained == [kind == "batch"] * 2  # scale and bias
    jax.tree.map(np.testing.assert_array_equal, results(folded), wanted)  # on a CPU
    monkeypatch.setattr(jax.lax, "platform_dependent", accelerators_branch)
    for ours, theirs in zip(*map(jax.tree.leaves, (results(folded), wanted)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_gpu_multiplies_kernels_instead_of_activations():
    model, images = ResNet("resnet18", top_level=3), random_images(5, 64, 96, 3)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    traced = jax.jit(functools.partial(model.apply, train=True)).trace(variables, images)
    multiplied = {
        platform: [
            line
            for line in traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
            if "stablehlo.multiply" in line and "tensor<5x" in line
        ]
        for platform in ("cpu", "cuda")
    }
    assert multiplied["cpu"] and not multiplied["cuda"]


SHARDED_NORM = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from retinanet_jax.core.norms import Norm
mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
x = np.random.default_rng(0).standard_normal((8, 2, 2, 4)).astype(np.float32)
x += np.arange(8)[:, None, None, None]
layer = Norm(4, "batch")
variables = layer.init(jax.random.key(0), x, train=False)
step = jax.jit(lambda v, x: layer.apply(v, x, train=True, mutable=["batch_stats"]))
one = step(variables, x)
eight = step(variables, jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
assert len(eight[0].sharding.device_set) == 8
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight)
"""


def test_batch_statistics_are_global_over_eight_devices(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", xla_flags(devices=8))
    subprocess.run([sys.executable, "-c", SHARDED_NORM], check=True, timeout=600)


def small_resnet(**options):
    model = ResNet("resnet18", **options)
    images = random_images(2, 45, 70, 3)
    return model, images, golden_models.random_variables(model)


def test_levels_halve_rounding_up_and_stages_above_are_not_built():
    model, images, variables = small_resnet(top_level=4)
    levels = jax.eval_shape(lambda: model.apply(variables, images, train=False))
    assert {k: v.shape[1:] for k, v in levels.items()} == {
        2: (12, 18, 64),
        3: (6, 9, 128),
        4: (3, 5, 256),
    }
    assert not [name for name in variables["params"] if name.startswith("layer4")]


@pytest.mark.parametrize("frozen_stages", [0, 1, 3])
def test_frozen_stages_have_no_gradient_and_keep_their_statistics(frozen_stages):
    model, images, variables = small_resnet(top_level=3, norm="batch", frozen_stages=frozen_stages)

    @jax.jit
    def gradient(params):
        def loss(params):
            levels, updated = model.apply(
                variables | {"params": params}, images, train=True, mutable=["batch_stats"]
            )
            weights = random_images(*levels[3].shape)
            return (levels[3] * weights).sum() + (levels[2] ** 2).sum(), updated["batch_stats"]

        return jax.grad(loss, has_aux=True)(params)

    grads, stats = gradient(variables["params"])
    for name, tree in grads.items():
        stage = int(name[5]) + 1 if name.startswith("layer") else 1
        moved = [bool(np.abs(leaf).max() > 0) for leaf in jax.tree.leaves(tree)]
        assert moved == [stage > frozen_stages] * len(moved), name
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
        if name in stats:
            same = jax.tree.map(np.array_equal, stats[name], variables["batch_stats"][name])
            assert set(jax.tree.leaves(same)) == {stage <= frozen_stages}, name


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_activations_of_a_fresh_network_are_of_order_one(norm):
    model, images, _ = small_resnet(norm=norm, top_level=4)
    key = jax.random.key(0, impl="rbg")  # compiles faster than the default
    variables = jax.jit(lambda key: model.init(key, images, train=False))(key)
    levels, _ = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"]))(
        variables
    )
    for level, feature in levels.items():
        assert 0.3 < np.sqrt(np.square(feature).mean()) < 4, level


def test_fresh_convolutions_are_he_normal_over_the_fan_out():
    layer = Conv(256, 3)
    kernel = layer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 128)))["params"]["kernel"]
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    assert np.abs(kernel).max() > 4 * kernel.std()  # not truncated


def test_normalize_by_hand():
    images = np.full((1, 2, 2, 3), (255, 0, 127.5), np.uint8)
    wanted = [(1 - 0.485) / 0.229, -0.456 / 0.224, (127 / 255 - 0.406) / 0.225]
    np.testing.assert_allclose(normalize(images, PixelConfig())[0, 1, 1], wanted, rtol=1e-6)
    detectron2 = PixelConfig((103.53, 116.28, 123.675), (1, 1, 1), scale=1.0, order="bgr")
    wanted = [127 - 103.53, -116.28, 255 - 123.675]
    np.testing.assert_allclose(normalize(images, detectron2)[0, 0, 0], wanted, rtol=1e-6)


def test_normalize_leaves_zeros_outside_of_the_image():
    images = np.full((2, 4, 5, 3), 200, np.uint8)
    sizes = np.array([[3, 5], [4, 2]], np.float32)
    pixels = np.asarray(normalize(images, PixelConfig(), sizes))
    assert (pixels[0, :3] > 0).all() and (pixels[1, :, :2] > 0).all()
    assert (pixels[0, 3:] == 0).all() and (pixels[1, :, 2:] == 0).all()


def test_pixel_config_names_the_field():
    with pytest.raises(ValueError, match=r"pixels.order: 'grb' is not one of rgb, bgr"):
        PixelConfig(order="grb")
    with pytest.raises(ValueError, match=r"pixels.std"):
        PixelConfig(std=(1, 0, 1))


def fold(state, epsilon=1e-5):
    """A classifier's batch norm folded into its convolutions, as inference tools do."""
    folded = {}
    for key in state:
        module = key.rpartition(".")[0]
        parent, _, name = module.rpartition(".")
        if name.startswith("bn") or module.endswith("downsample.1"):
            continue
        folded[key] = state[key]
        if name.startswith("conv") or module.endswith("downsample.0"):
            other = name.replace("conv", "bn") if name.startswith("conv") else "1"
            norm = f"{parent}.{other}" if parent else other
            gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + epsilon)
            folded[key] = state[key] * gain[:, None, None, None]
            folded[f"{module}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain
    return folded


def test_folded_checkpoint_is_the_same_function(golden_dir):
    state = golden_models.state_dict(golden_dir, "resnet18")
    model = ResNet("resnet18")
    empty = as_backbone(golden_models.empty_variables(model))
    images = random_images(1, 64, 64, 3)
    run = jax.jit(lambda v: model.apply(as_resnet(v), images, train=False)[5])
    wanted = run(backbone_from_torchvision(state, empty).variables)
    imported = backbone_from_torchvision(fold(state), empty)
    assert imported.random == () and imported.unused == ("fc.weight", "fc.bias")
    np.testing.assert_allclose(run(imported.variables), wanted, atol=2e-4)


def test_every_key_that_does_not_fit_is_named(golden_dir):
    state = golden_models.state_dict(golden_dir, "resnet18")
    del state["layer2.0.bn1.running_var"]
    state["layer1.0.conv1.weight"] = np.zeros((64, 64, 1, 1), np.float32)
    state["layer1.0.se.weight"] = np.zeros(3, np.float32)
    empty = as_backbone(golden_models.empty_variables(ResNet("resnet18")))
    with pytest.raises(WeightsError) as error:
        backbone_from_torchvision(state, empty)
    for part in (
        "missing: layer2.0.bn1.running_var for backbone/layer2_0/bn1/var",
        "misshapen: layer1.0.conv1.weight (1, 1, 64, 64) for backbone/layer1_0/conv1/kernel",
        "unknown: layer1.0.se.weight",
    ):
        assert part in str(error.value)
    report = backbone_from_torchvision(state, empty, partial=True)
    assert report.random == ("backbone/layer2_0/bn1/var", "backbone/layer1_0/conv1/kernel")
    assert "layer1.0.se.weight" in report.unused
    with pytest.raises(WeightsError, match="no array of the checkpoint fits"):
        backbone_from_torchvision({"stem.weight": np.zeros(3)}, empty, partial=True)


def test_stages_that_are_not_built_are_no_error(golden_dir):
    state = golden_models.state_dict(golden_dir, "resnet18")
    empty = as_backbone(golden_models.empty_variables(ResNet("resnet18", top_level=3)))
    report = backbone_from_torchvision(state, empty)
    assert report.random == () and "layer4.0.conv1.weight" in report.unused
