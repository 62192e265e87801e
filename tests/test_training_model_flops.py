"""Operations of a train step against counts of others, and the MFU of runs on imagined devices."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from small import small_config
from test_training_loop import Log, clock, metered  # noqa: F401  (clock is a fixture)

from retinanet_jax.core.differentiation import any_derivative
from retinanet_jax.core.initialization import Initializer
from retinanet_jax.core.retinanet import ModelConfig, build_model
from retinanet_jax.training import meter
from retinanet_jax.training.model_flops import (
    SIDE,
    ModelFlops,
    peak_rate,
    run_flops,
    training_flops,
)


def shapes_of(config: ModelConfig, num_classes: int) -> dict:
    initializer = Initializer(build_model(config, num_classes, 9))
    return jax.eval_shape(initializer.variables, initializer.shapes())


@pytest.mark.extended
def test_resnet50_needs_the_published_operations():
    # Of a training step at 640x640 with frozen stem and res2: 546 GFLOP, 855 at 800x800.
    config = ModelConfig(backbone="resnet50", frozen_stages=2)
    per_pixel = training_flops(config, shapes_of(config, 80), 80, 9)
    assert per_pixel * 640**2 == pytest.approx(546e9, rel=0.005)
    assert per_pixel * 800**2 == pytest.approx(855e9, rel=0.005)


def test_remat_changes_nothing_and_xla_counts_the_same():
    fields = dict(backbone="resnet18", backbone_levels=(3,), max_level=4, head_depth=1)
    config = ModelConfig(**fields, frozen_stages=1, remat="all")
    model, variables = (
        build_model(ModelConfig(**fields, frozen_stages=1), 5, 9),
        shapes_of(config, 5),
    )

    def total(params, stats, images):
        # Other derivatives than the step's own rules, which also hold code that is never used.
        with any_derivative():
            variables = {"params": params, "batch_stats": stats}
            predictions = model.apply(variables, images, train=False)
        return sum(jnp.sum(x) for x in jax.tree.leaves(predictions))

    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), "float32")
    lowered = jax.jit(jax.grad(total)).lower(variables["params"], variables["batch_stats"], images)
    # XLA leaves out products with padding, and adds norms, activations and sums.
    ours = training_flops(config, variables, 5, 9) * SIDE**2
    assert ours == pytest.approx(lowered.cost_analysis()["flops"], rel=0.05)


def device(kind: str, platform: str = "gpu") -> SimpleNamespace:
    return SimpleNamespace(device_kind=kind, platform=platform)


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        *(("NVIDIA H200", 989), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756)),
        *(
            ("NVIDIA A100-SXM4-80GB", 312),
            ("NVIDIA A10G", 70),
            ("NVIDIA L4", 121),
            ("Tesla T4", 65),
        ),
        *(
            ("Tesla T4", 65),
            ("TPU v4", 275),
            ("TPU v5 lite", 197),
            ("TPU v5", 459),
            ("TPU v6 lite", 918),
        ),
    ],
)
def test_peak_rates(kind, teraflops):
    assert peak_rate(device(kind)) == teraflops * 1e12


@pytest.mark.parametrize(
    "unknown", [device("NVIDIA T400"), device("NVIDIA RTX A1000"), device("cpu", "cpu")]
)
def test_devices_without_a_known_peak_have_no_mfu(unknown):
    devices = [device("NVIDIA H200"), unknown]
    assert peak_rate(unknown) is None
    assert run_flops(small_config(), {}, num_classes=5, devices=devices) is None


def test_a_run_on_eight_devices_has_the_peak_of_all():
    config = small_config()
    found = run_flops(config, shapes_of(config.model, 5), 5, [device("NVIDIA H200")] * 8)
    assert found.peak == 8 * 989e12
    # By hand: the stem of a ResNet-18 alone takes 7 * 7 * 3 * 64 multiply-adds for 4 pixels, twice.
    assert found.per_pixel > 2 * 2 * 7 * 7 * 3 * 64 / 4


def test_the_log_shows_mfu_where_the_peak_is_known(clock):  # noqa: F811
    flops = ModelFlops(per_pixel=1e6, peak=1e12)

    def new_meter(*arguments):
        made = meter.Meter(*arguments, lambda: flops)
        made._canvas = (500, 1000)
        return made

    log = metered(clock, step_seconds=8.0, data_seconds=1.0, make=new_meter)
    # 4 images of half a million pixels: 2e12 operations a step, in 8 s at 1e12 a second.
    assert [means["mfu"] for means in log.means] == pytest.approx([0.25, 0.25])
    assert all("  MFU 25%" in line for line in log.lines)
    (message,) = [text for text in log.messages if "MFU" in text]
    assert "needs 500 GFLOP per image of 500x1000 pixels" in message
    assert "relative to 1 TFLOP/s" in message


def test_the_log_of_a_cpu_has_no_mfu(clock):  # noqa: F811
    log = metered(clock, step_seconds=8.0, data_seconds=1.0)
    assert not any("mfu" in means for means in log.means)
    assert not any("MFU" in text for text in log.lines + log.messages)
