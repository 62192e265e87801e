"""The train step: what it leaves alone, what it sums, that it compiles once."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.config.settings import ConfigError, check_batch_size
from retinanet_jax.core.anchors import anchors_for_image
from retinanet_jax.core.focal import FocalParams
from retinanet_jax.core.loss import Losses, retinanet_loss
from retinanet_jax.core.loss_config import LossConfig
from retinanet_jax.core.loss_normalizer import FIRST_POSITIVES, divisors
from retinanet_jax.core.targets import Targets
from retinanet_jax.data.dataset import load_dataset
from retinanet_jax.data.pipeline.batch import IDENTITY_COLOR
from retinanet_jax.data.pipeline.input_pipeline import train_batches
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime import traced_programs
from retinanet_jax.runtime.mesh import make_mesh, replicated, to_devices
from retinanet_jax.runtime.traced_programs import keep_traced_programs
from retinanet_jax.training import run
from retinanet_jax.training.accumulation import accumulate_gradients
from retinanet_jax.training.batch_targets import assign_targets, labels_by_part
from retinanet_jax.training.device_augmentation import as_seen, augment_on_device
from retinanet_jax.training.setup import compilation_key, compile_functions, make_setup
from retinanet_jax.training.step import focal_params

CATEGORIES = Categories(("a", "b", "c", "d", "e"), (1, 2, 3, 4, 5))


def setup_of(**fields):
    mesh = make_mesh(jax.devices()[:1])
    return make_setup(small_config(**fields), CATEGORIES, mesh, lambda text: None), mesh


PLAIN = {
    "optimizer__name": "adamw",
    "optimizer__learning_rate": 2e-3,
    "optimizer__base_batch_size": 4,
    "optimizer__ema_decay": 0.5,
}
GROUP = {"model__norm": "group", "train__batch_size": 8, "optimizer__momentum": 0.0}


@pytest.fixture(scope="module")
def plain():
    """Live batch norm, AdamW and a moving average."""
    return setup_of(**PLAIN)


@pytest.fixture(scope="module")
def group():
    """Group norm, in which no image sees another, and gradient descent."""
    return setup_of(**GROUP)


def copy_of(state):
    return jax.tree.map(jnp.copy, state)


@pytest.mark.parametrize("alpha", [0.3, None])
def test_the_focusing_parameters_of_a_step_are_those_of_the_config(alpha):
    config = LossConfig(classification="focal_star", gamma=1.5, alpha=alpha, star_beta=0.7)
    found = jax.device_get(focal_params(config))
    assert found == (np.float32(1.5), alpha and np.float32(alpha), np.float32(0.7))


def test_a_batch_is_learned_by_heart(plain):
    setup, mesh = plain
    batch, state, losses = to_devices(small_batch(), mesh), copy_of(setup.state), []
    for _ in range(12):
        state, metrics = setup.step_fn(state, batch, setup.focal, setup.schedule(0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.6 * losses[0]
    assert int(state.step) == 12


def assert_only_counters_advanced(before, after, by):
    counters = 0
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        counts = np.issubdtype(old.dtype, np.integer)
        counters += counts
        np.testing.assert_array_equal(new, old + by if counts else old)
    assert counters >= 2  # the state's step, and AdamW's in the optimizer


def test_an_update_that_is_not_finite_advances_only_counters(plain):
    setup, mesh = plain
    batch = to_devices(small_batch(), mesh)
    state, metrics = setup.step_fn(copy_of(setup.state), batch, setup.focal, setup.schedule(0))
    assert float(metrics["skipped"]) == 0
    norms = [float(value) for name, value in metrics.items() if "gradient_norm/" in name]
    assert len(norms) == 4 and np.linalg.norm(norms) == pytest.approx(
        float(metrics["gradient_norm"]), rel=1e-5
    )
    before = jax.device_get(state)
    infinite = jax.device_put(setup.focal._replace(gamma=jnp.float32(np.nan)), replicated(mesh))
    state, metrics = setup.step_fn(state, batch, infinite, setup.schedule(0))
    assert float(metrics["skipped"]) == 1 and np.isnan(float(metrics["loss"]))
    assert_only_counters_advanced(before, state, by=1)
    # The loss is finite, but the squares of its gradients are not: they overflow.
    steep = jax.device_put(setup.focal._replace(alpha=jnp.float32(1e30)), replicated(mesh))
    state, metrics = setup.step_fn(state, batch, steep, setup.schedule(0))
    assert np.isfinite(float(metrics["loss"])) and np.isinf(float(metrics["gradient_norm"]))
    assert float(metrics["skipped"]) == 1
    assert_only_counters_advanced(before, state, by=2)
    state, metrics = setup.step_fn(state, batch, setup.focal, setup.schedule(0))
    assert float(metrics["skipped"]) == 0 and np.isfinite(float(metrics["loss"]))
    assert not np.array_equal(jax.tree.leaves(state.params)[0], jax.tree.leaves(before.params)[0])


def test_a_step_and_a_prediction_from_disk_have_the_same_results(plain, tmp_path, monkeypatch):
    setup, mesh = plain
    config, batch = small_config(**PLAIN), to_devices(small_batch(), mesh)
    monkeypatch.setattr(traced_programs, "runs_known_code", lambda experiments: True)
    keep_traced_programs(tmp_path)
    try:
        written, read = (compile_functions(config, 5, mesh) for _ in range(2))
    finally:
        keep_traced_programs(None)
    results = []
    for functions in (setup, written, read):
        found = functions.measure_fn(setup.state.variables(), batch, setup.focal)
        state = copy_of(setup.state)
        for _ in range(2):
            state, metrics = functions.step_fn(state, batch, setup.focal, setup.schedule(0))
        results.append((state, metrics, found))
    traced, first, second = results
    jax.tree.map(np.testing.assert_array_equal, first, second)
    # Another process may have compiled the traced one, with other rounding.
    assert jax.tree.structure(traced) == jax.tree.structure(second)
    assert float(second[1]["loss"]) == pytest.approx(float(traced[1]["loss"]), rel=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-3), traced[2], second[2])
    assert len(list((tmp_path / "traced").iterdir())) == 2


@pytest.mark.extended
def test_steps_of_all_kinds_compile_once_per_canvas(plain):
    setup, mesh = plain
    state, programs = copy_of(setup.state), setup.step_fn._cache_size()
    gammas = (0.0, 0.5, 2.0)
    rates = map(np.float32, itertools.count(1e-3, 1e-4))
    for canvas in ((64, 64), (64, 96), (64, 64), (64, 96)):
        for gamma in gammas:
            focal = FocalParams(jnp.float32(gamma), jnp.float32(0.1 * gamma), jnp.float32(0))
            focal = jax.device_put(focal, replicated(mesh))
            batch = small_batch(int(10 * gamma), canvas=canvas)
            ragged = batch._replace(valid=np.array([True, True, True, False]))
            for rows in (batch, ragged):
                state, _ = setup.step_fn(state, to_devices(rows, mesh), focal, next(rates))
    # Two canvases; other tests may have run the step on the first of them.
    assert 1 <= setup.step_fn._cache_size() - programs <= 2


@pytest.mark.extended
def test_training_with_every_augmentation_compiles_once_and_stays_finite(plain):
    setup, mesh = plain
    fields = {
        "scales": (48, 64),
        "scale_jitter": (0.5, 1.5),
        "crop": (0.5, 1.0),
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.4,
        "hue": 0.1,
        "mosaic": 0.5,
    }
    augmentation = {f"augmentation__{name}": value for name, value in fields.items()}
    config = small_config(**augmentation)
    dataset = load_dataset(config.data, "train")
    batches = train_batches(
        dataset, batch_size=4, seed=0, settings=config.pipeline, augmentation=config.augmentation
    )
    state, programs = copy_of(setup.state), setup.step_fn._cache_size()
    for host in itertools.islice(batches, 6):
        before, batch = copy_of(state), to_devices(host.batch, mesh)
        state, metrics = setup.step_fn(state, batch, setup.focal, setup.schedule(0))
        assert np.isfinite(float(metrics["loss"])) and float(metrics["positives"]) > 0
    # The marks of a batch tell what the model sees: the same loss without marks, on the result.
    assert host.batch.flip.any() and host.batch.color.std(0).any()
    identity = np.broadcast_to(IDENTITY_COLOR, host.batch.color.shape).astype(np.float32)
    unmarked = {"flip": np.zeros_like(host.batch.flip), "color": identity}
    seen = as_seen(host.batch)._replace(**unmarked)
    _, again = setup.step_fn(before, to_devices(seen, mesh), setup.focal, setup.schedule(0))
    assert setup.step_fn._cache_size() == programs + 1
    assert float(again["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_nothing_leaves_the_device_during_a_step(plain):
    setup, mesh = plain
    state, batch = copy_of(setup.state), to_devices(small_batch(), mesh)
    state, _ = setup.step_fn(state, batch, setup.focal, setup.schedule(0))
    rate = jnp.asarray(setup.schedule(1))
    with jax.transfer_guard("disallow"):
        setup.step_fn(state, batch, setup.focal, rate)


def test_padding_images_change_nothing(group):
    setup, mesh = group
    batch, junk = small_batch(rows=8), small_batch(seed=9, rows=8)
    valid = np.arange(8) < 6
    padded = batch._replace(valid=valid, gt_labels=np.where(valid[:, None], batch.gt_labels, -1))
    other = padded._replace(images=np.concatenate([batch.images[:6], junk.images[6:]]))
    after = [
        setup.step_fn(copy_of(setup.state), to_devices(b, mesh), setup.focal, setup.schedule(0))
        for b in (padded, other)
    ]
    params = (state.params for state, _ in after)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), *params)


def test_the_learning_rate_is_an_argument(group):
    """Three times the rate gives three times the update, by the same compiled step."""
    setup, mesh = group
    batch, before = to_devices(small_batch(rows=8), mesh), jax.device_get(setup.state.params)
    programs, updates = setup.step_fn._cache_size(), []
    for rate in np.float32([0.01, 0.03]):
        state, metrics = setup.step_fn(copy_of(setup.state), batch, setup.focal, rate)
        assert metrics["learning_rate"] == rate
        updates.append(jax.tree.map(lambda new, old: np.asarray(new) - old, state.params, before))
    assert setup.step_fn._cache_size() - programs <= 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(3 * a, b, rtol=1e-3, atol=1e-6), *updates)
    fields = {"learning_rate": 0.5, "schedule": "cosine", "warmup_steps": 2, "decay_at": (0.5,)}
    other = small_config(**GROUP, **{f"optimizer__{name}": v for name, v in fields.items()})
    assert compilation_key(other) == compilation_key(small_config(**GROUP))


def test_accumulation_gives_the_update_of_the_whole_batch(group):
    whole, mesh = group
    parts, _ = setup_of(**GROUP, optimizer__accumulate_steps=4)
    batch = to_devices(small_batch(rows=8), mesh)
    state_a, a = whole.step_fn(copy_of(whole.state), batch, whole.focal, whole.schedule(0))
    state_b, b = parts.step_fn(parts.state, batch, parts.focal, parts.schedule(0))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-4, err_msg=name)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=2e-6),
        state_a.params,
        state_b.params,
    )


def test_labels_by_part_are_those_of_the_whole_batch():
    config, mesh = small_config(optimizer__accumulate_steps=4), make_mesh(jax.devices()[:1])
    batch = small_batch(rows=8)._replace(flip=np.arange(8) % 3 == 0)
    anchors = anchors_for_image((64, 64), config.anchors)
    # Compiled, since two anchors that overlap a box equally differ in the last bit otherwise.
    match = jax.jit(lambda batch: assign_targets(anchors, augment_on_device(batch), config).labels)
    wanted = match(batch)
    assert len(np.unique(wanted, axis=0)) == 8  # no two images have the same labels
    labels = jax.jit(lambda batch: labels_by_part(anchors, batch, config, mesh))(batch)
    np.testing.assert_array_equal(labels, wanted)


@pytest.mark.extended
def test_a_running_normalizer_and_hard_examples_work_in_parts_too():
    loss = {"loss__classification": "quality_focal", "loss__hard_examples": 64}
    fields = GROUP | loss | {"loss__normalizer": "running", "optimizer__accumulate_steps": 2}
    setup, mesh = setup_of(**fields)
    batch, state = to_devices(small_batch(rows=8), mesh), copy_of(setup.state)
    assert float(state.positives) == FIRST_POSITIVES
    expected, class_losses = FIRST_POSITIVES, []
    for _ in range(3):
        state, metrics = setup.step_fn(state, batch, setup.focal, setup.schedule(0))
        expected = 0.9 * expected + 0.1 * float(metrics["positives"])
        assert float(state.positives) == pytest.approx(expected, rel=1e-5)
        class_losses.append(float(metrics["class_loss"]))
    assert np.isfinite(class_losses).all() and setup.step_fn._cache_size() == 1


@pytest.mark.parametrize("normalizer", ["batch", "batch_plus_one", "image", "level", "running"])
def test_losses_of_parts_add_up(normalizer):
    """A linear model of the class logits in the place of the network."""
    rng = np.random.default_rng(0)
    anchors = tuple(rng.uniform(0, 9, (n, 4)).astype(np.float32) for n in (6, 3))
    labels = rng.integers(-2, 2, (8, 9)).astype(np.int32)
    targets = Targets(labels, np.zeros((8, 9, 4), np.float32))
    valid, config = np.arange(8) < 7, LossConfig(normalizer=normalizer, box_weight=0.0)
    inputs = rng.normal(0, 1, (8, 9, 2)).astype(np.float32)
    divisor = divisors(labels, valid, (6, 3), config, jnp.float32(4))

    def loss_fn(params, stats, inputs, targets, valid, divisor):
        logits = tuple(jnp.split(params * inputs, [6], axis=1))
        deltas = tuple(jnp.zeros((*part.shape[:2], 4)) for part in logits)
        found = retinanet_loss(logits, deltas, anchors, targets, valid, config, divisor=divisor)
        return found.total, (found, stats)

    examples = inputs, targets, valid, divisor
    whole, parts = (
        accumulate_gradients(loss_fn, jnp.float32(0.7), {}, examples, parts) for parts in (1, 4)
    )
    for ours, theirs in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert float(whole[2]) != 0


def test_parts_update_the_running_statistics_one_after_the_other():
    """Each part of a batch starts from the statistics that the part before it left."""
    means = np.float32([[1], [5], [2], [8]])  # parts are every second image: (1, 2) and (5, 8)

    def loss_fn(params, stats, images):
        stats = {"mean": 0.9 * stats["mean"] + 0.1 * jnp.mean(images)}
        return params, (Losses(params, params, params, params), stats)

    stats = {"mean": jnp.float32(100)}
    _, stats, _ = accumulate_gradients(loss_fn, jnp.float32(1), stats, (means,), parts=2)
    assert float(stats["mean"]) == pytest.approx(0.9 * (0.9 * 100 + 0.1 * 1.5) + 0.1 * 6.5)


def test_the_average_is_kept_and_predicted_with(plain):
    setup, mesh = plain
    before = jax.device_get({"params": setup.state.params, "batch_stats": setup.state.batch_stats})
    state = copy_of(setup.state)
    state, _ = setup.step_fn(state, to_devices(small_batch(), mesh), setup.focal, setup.schedule(0))
    after = {"params": state.params, "batch_stats": state.batch_stats}
    largest = max(np.abs(a - b).max() for a, b in zip(*map(leaves, (before, after)), strict=True))
    assert largest > 1e-2
    # At step 0 the decay is 1 / 10.
    jax.tree.map(
        lambda old, new, average: np.testing.assert_allclose(
            average, 0.1 * old + 0.9 * new, rtol=1e-4, atol=1e-6
        ),
        before,
        after,
        state.variables(),
    )


def leaves(tree):
    return map(np.asarray, jax.tree.leaves(tree["batch_stats"]))


def test_a_batch_without_boxes_still_teaches(plain):
    setup, mesh = plain
    batch = small_batch()
    empty = batch._replace(gt_labels=np.full_like(batch.gt_labels, -1))
    state = copy_of(setup.state)
    _, metrics = setup.step_fn(state, to_devices(empty, mesh), setup.focal, setup.schedule(0))
    assert float(metrics["class_loss"]) > 0 and float(metrics["box_loss"]) == 0
    assert float(metrics["positives"]) == 0 and np.isfinite(float(metrics["gradient_norm"]))


def test_bfloat16_stays_near_float32(plain):
    losses = []
    for setup, mesh in (plain, setup_of(**PLAIN, model__dtype="bfloat16")):
        batch = to_devices(small_batch(), mesh)
        state, metrics = setup.step_fn(copy_of(setup.state), batch, setup.focal, setup.schedule(0))
        assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(state.params))
        losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


@pytest.mark.extended
def test_rematerialisation_gives_the_same_update(plain):
    setups = [setup for setup, _ in (plain, setup_of(**PLAIN, model__remat="all"))]
    batch = to_devices(small_batch(), plain[1])
    results = [one.step_fn(copy_of(one.state), batch, one.focal, one.schedule(0)) for one in setups]

    # Rounding may put a ReLU on the other side of zero, which changes single numbers by more.
    def assert_close(ours, theirs):
        difference = np.linalg.norm(np.float64(ours) - np.float64(theirs))
        assert difference <= 1e-2 * np.linalg.norm(np.float64(theirs)) + 1e-4

    jax.tree.map(assert_close, *results)


def test_batch_that_devices_cannot_share_says_what_to_write():
    with pytest.raises(ConfigError, match=r"train\.batch_size: 12 .* a multiple of 8, such as 16"):
        check_batch_size(12, 8, "train.batch_size")
    with pytest.raises(ConfigError, match=r"16 images in 4 parts .* multiple of 32, such as 32"):
        check_batch_size(16, 8, "train.batch_size", parts=4)
    check_batch_size(32, 8, "train.batch_size", parts=4)


def test_a_run_refuses_parts_that_devices_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "make_mesh", lambda: types.SimpleNamespace(size=8))
    config = small_config(train__batch_size=16, optimizer__accumulate_steps=4)
    with pytest.raises(ConfigError, match=r"config\.train\.batch_size: 16 images in 4 parts"):
        run.train_and_evaluate(config, tmp_path)


def test_a_restored_run_takes_the_shapes_of_the_first_state_alone(plain):
    setup, mesh = plain
    config = small_config(**PLAIN)
    functions = compile_functions(config, CATEGORIES.num_classes, mesh)
    functions = functions._replace(init_fn=None, first_state_fn=None)  # neither is called
    like = make_setup(config, CATEGORIES, mesh, print, functions, restored=True).state

    def kind(x):
        return x.shape, x.dtype, x.sharding

    assert jax.tree.map(kind, like) == jax.tree.map(kind, setup.state)
