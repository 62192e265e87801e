"""The optimizer: torch.optim.SGD's trace, AdamW's formulas, closed forms, masks."""

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retinanet_jax.core.retinanet import ModelConfig, build_model, trainable_mask
from retinanet_jax.training.optimizer import (
    OptimizerConfig,
    kernels_only,
    make_optimizer,
    make_schedule,
    scaled_learning_rate,
    update_average,
)


def run(optimizer, params, gradients, rate):
    """The parameters after each update; `rate` is a number, or a function of the updates done."""
    state, trace = optimizer.init(params), []
    for step, gradient in enumerate(gradients):
        now = rate(step) if callable(rate) else rate
        updates, state = optimizer.update(gradient, state, params, learning_rate=now)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        trace.append(params)
    return trace


def test_warmup_and_steps_in_closed_form():
    config = OptimizerConfig(warmup_steps=10, warmup_factor=0.1, decay_at=(0.5, 0.75))
    schedule = make_schedule(config, batch_size=16, total_steps=100)
    np.testing.assert_allclose(schedule(0), 0.001, rtol=1e-6)
    np.testing.assert_allclose(schedule(5), 0.01 * 0.55, rtol=1e-6)
    np.testing.assert_allclose([schedule(10), schedule(49)], 0.01, rtol=1e-6)
    # The update with the number 50 is the first with the lower rate, as in torch's MultiStepLR.
    np.testing.assert_allclose([schedule(50), schedule(51), schedule(74)], 0.001, rtol=1e-5)
    np.testing.assert_allclose([schedule(75), schedule(99)], 0.0001, rtol=1e-5)


def test_cosine_ends_at_zero_and_constant_stays():
    cosine = make_schedule(OptimizerConfig(schedule="cosine", warmup_steps=0), 16, 100)
    np.testing.assert_allclose([cosine(0), cosine(50), cosine(100)], [0.01, 0.005, 0], atol=1e-8)
    # A warm-up multiplies the cosine; it neither delays nor shortens it.
    warmed = make_schedule(OptimizerConfig(schedule="cosine", warmup_steps=20), 16, 100)
    np.testing.assert_allclose([warmed(50), warmed(75)], [cosine(50), cosine(75)], rtol=1e-6)
    np.testing.assert_allclose(warmed(10), cosine(10) * (0.001 + 1) / 2, rtol=1e-5)
    constant = make_schedule(OptimizerConfig(schedule="constant", warmup_steps=0), 16, 100)
    np.testing.assert_allclose([constant(0), constant(99)], 0.01, rtol=1e-6)


def test_rate_follows_the_batch():
    assert scaled_learning_rate(OptimizerConfig(), 64) == pytest.approx(0.04)
    assert scaled_learning_rate(OptimizerConfig(name="adamw"), 64) == pytest.approx(0.02)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(golden_dir, nesterov):
    golden = np.load(golden_dir / "units.npz")
    config = OptimizerConfig(momentum=0.9, nesterov=nesterov, weight_decay=0.05)
    optimizer, start = make_optimizer(config, {"w": True}), {"w": jnp.asarray(golden["sgd/start"])}
    gradients = [{"w": jnp.asarray(g)} for g in golden["sgd/grads"]]
    trace = run(optimizer, start, gradients, lambda step: 0.1 if step < 3 else 0.01)
    ours = np.stack([step["w"] for step in trace])
    np.testing.assert_allclose(ours, golden[f"sgd/nesterov_{nesterov}"], rtol=1e-5, atol=1e-6)


def test_adamw_follows_its_formulas(golden_dir):
    """Loshchilov and Hutter (arXiv 1711.05101), algorithm 2, in float64, with the constants of
    torch.optim.AdamW: beta1 .9, beta2 .999, epsilon 1e-8, decay multiplied by the rate."""
    golden = np.load(golden_dir / "units.npz")
    optimizer = make_optimizer(OptimizerConfig(name="adamw", weight_decay=0.05), {"w": True})
    gradients = np.tile(golden["sgd/grads"], (3, 1)) * np.linspace(1, 0.2, 18)[:, None]
    trace = run(
        optimizer,
        {"w": jnp.asarray(golden["sgd/start"])},
        [{"w": jnp.asarray(g, jnp.float32)} for g in gradients],
        0.1,
    )
    w, m, v = golden["sgd/start"].astype(np.float64), 0.0, 0.0
    for step, (gradient, ours) in enumerate(zip(gradients, trace, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        corrected = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        w = w - 0.1 * (corrected + 0.05 * w)
        np.testing.assert_allclose(ours["w"], w, rtol=1e-4, atol=1e-5)


def test_frozen_parameters_neither_move_nor_decay_nor_cost_memory():
    params = {"frozen": jnp.ones((2, 2)), "free": jnp.ones((3,))}
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5), {"frozen": False, "free": True})
    after = run(optimizer, params, [jax.tree.map(jnp.ones_like, params)], 0.1)[-1]
    np.testing.assert_array_equal(after["frozen"], params["frozen"])
    np.testing.assert_allclose(after["free"], 1 - 0.1 * 1.5, rtol=1e-6)
    assert sum(x.size for x in jax.tree.leaves(optimizer.init(params))) < 6


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_of_kernels_leaves_biases_alone(name):
    params = {"kernel": jnp.ones((1, 1, 2, 2)), "bias": jnp.ones((2,))}
    zero = jax.tree.map(jnp.zeros_like, params)
    config = OptimizerConfig(name=name, weight_decay=0.1, decay="kernels")
    trainable = jax.tree.map(lambda _: True, params)
    after = run(make_optimizer(config, trainable), params, [zero], 1.0)[-1]
    np.testing.assert_allclose(after["kernel"], 0.9, rtol=1e-6)
    np.testing.assert_array_equal(after["bias"], params["bias"])
    assert kernels_only(params) == {"kernel": True, "bias": False}


def test_the_backbone_may_move_slower():
    params = {"backbone": {"w": jnp.zeros(2)}, "fpn": {"w": jnp.zeros(2)}}
    config = OptimizerConfig(backbone_factor=0.1, weight_decay=0.0)
    trainable = jax.tree.map(lambda _: True, params)
    optimizer = make_optimizer(config, trainable)
    after = run(optimizer, params, [jax.tree.map(jnp.ones_like, params)], 1.0)[-1]
    np.testing.assert_allclose(after["backbone"]["w"], -0.1, rtol=1e-6)
    np.testing.assert_allclose(after["fpn"]["w"], -1.0, rtol=1e-6)


def test_the_rate_falls_with_the_stages_of_the_backbone():
    """decay^1 for layer4 to decay^5 for the stem, times backbone_factor; frozen layers stay."""
    model = ModelConfig("resnet50", norm="batch", frozen_stages=1)
    shapes = golden_models.empty_variables(build_model(model, 3, 9))["params"]
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    config = OptimizerConfig(
        stage_decay=0.5, backbone_factor=0.1, weight_decay=0.0, gradient_clip=None
    )
    optimizer = make_optimizer(config, trainable_mask(params, model))
    after = run(optimizer, params, [jax.tree.map(jnp.ones_like, params)], 1.0)[-1]
    rates = {"conv1": 0, "bn1": 0, "layer1": 1 / 16, "layer2": 1 / 8, "layer3": 1 / 4}
    rates["layer4"] = 1 / 2
    for name, block in after["backbone"].items():
        for leaf in jax.tree.leaves(block):
            np.testing.assert_allclose(leaf, -0.1 * rates[name.split("_")[0]], rtol=1e-6)
    assert len(after["backbone"]) == 2 + 3 + 4 + 6 + 3
    for leaf in jax.tree.leaves(after["fpn"]):
        np.testing.assert_allclose(leaf, -1.0, rtol=1e-6)


def test_a_decay_by_stages_needs_the_stages_of_a_resnet():
    config = OptimizerConfig(stage_decay=0.5)
    with pytest.raises(
        ValueError, match=r"optimizer\.stage_decay: only supported for ResNet backbones"
    ):
        make_optimizer(config, {"backbone": {"conv1": {"kernel": True}}})


def test_clipping_bounds_the_norm():
    params = {"a": jnp.zeros(4)}
    config = OptimizerConfig(gradient_clip=1.0, weight_decay=0.0)
    optimizer = make_optimizer(config, {"a": True})
    after = run(optimizer, params, [{"a": jnp.full(4, 100.0)}], 1.0)[-1]
    np.testing.assert_allclose(jnp.linalg.norm(after["a"]), 1.0, rtol=1e-6)


def test_clipping_is_of_the_gradient_alone():
    """Momentum adds clipped gradients, and weight decay is not clipped: torch's clip_grad_norm_."""
    config = OptimizerConfig(gradient_clip=1.0, weight_decay=0.0, momentum=0.9)
    optimizer = make_optimizer(config, {"a": True})
    after = run(optimizer, {"a": jnp.zeros(4)}, [{"a": jnp.full(4, 100.0)}] * 2, 1.0)[-1]
    np.testing.assert_allclose(jnp.linalg.norm(after["a"]), 1 + 1.9, rtol=1e-6)
    decaying = OptimizerConfig(gradient_clip=1.0, weight_decay=0.1)
    optimizer = make_optimizer(decaying, {"a": True})
    after = run(optimizer, {"a": jnp.full(4, 10.0)}, [{"a": jnp.zeros(4)}], 1.0)[-1]
    np.testing.assert_allclose(after["a"], 9.0, rtol=1e-6)


def test_average_of_a_constant_is_the_constant_and_lags_a_change():
    average = {"w": jnp.float32(2.0)}
    assert update_average(average, {"w": jnp.float32(2.0)}, jnp.int32(7), 0.9)["w"] == 2.0
    # At step 0 the decay is (1 + 0) / (10 + 0), later the configured one.
    early = update_average(average, {"w": jnp.float32(3.0)}, jnp.int32(0), 0.9)["w"]
    late = update_average(average, {"w": jnp.float32(3.0)}, jnp.int32(10_000), 0.9)["w"]
    np.testing.assert_allclose([early, late], [2.9, 2.1], rtol=1e-6)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("name", "adam", "sgd, adamw"),
        ("schedule", "poly", "step, cosine, constant"),
        ("learning_rate", 0.0, "above 0"),
        ("decay_at", (0.9, 0.5), "increasing fractions"),
        ("ema_decay", 1.0, "below 1"),
        ("ema_decay", 0.0, "write 'none'"),
        ("gradient_clip", 0.0, "write 'none'"),
        ("backbone_factor", -0.1, "at least 0 or 'auto'"),
        ("stage_decay", 0.0, r"is not in \(0, 1\]"),
        ("stage_decay", 1.1, r"is not in \(0, 1\]"),
        ("warmup_steps", -1, "must be at least 0"),
        ("weight_decay", float("nan"), "must be at least 0"),
        ("learning_rate", float("nan"), "must be above 0"),
    ],
)
def test_invalid_values_name_the_fix(field, value, says):
    with pytest.raises(ValueError, match=rf"optimizer\.{field}: .*{says}"):
        OptimizerConfig(**{field: value})
