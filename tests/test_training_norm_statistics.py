"""Batch norm without statistics, as in weights for inference, gets those of images."""

import dataclasses

import golden_models
import jax
import numpy as np
import pytest
from small import small_batch, small_config

from retinanet_jax.core.layers import normalize
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.mix import load_training_set
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.mesh import make_mesh
from retinanet_jax.training.norm_statistics import norms_without_statistics, with_statistics
from retinanet_jax.training.setup import compile_functions, first_state
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.keymap import LEAF_NAMES
from retinanet_jax.weights.torchvision import backbone_key

FIELDS = {"model__norm": "batch", "model__norm_momentum": 1.0}


@pytest.fixture(scope="module")
def affine():
    """Config, and a network whose norms have a scale and an offset alone."""
    config = small_config(**FIELDS)
    model = build_model(config.model, 5, config.anchors.anchors_per_location)
    variables = golden_models.random_variables(model)

    def clear(path, leaf):
        constant = {"mean": 0.0, "var": 1 - config.model.norm_epsilon}
        return np.full_like(leaf, constant[path[-1].key])

    statistics = jax.tree_util.tree_map_with_path(clear, variables["batch_stats"])
    return config, {**variables, "batch_stats": statistics}


def features(config, variables, batch, *, train):
    """The levels, and the statistics after them."""
    model = build_model(config.model, 5, config.anchors.anchors_per_location)

    @jax.jit
    def run(variables):
        images = normalize(batch.images, config.pixels, batch.image_sizes)
        return model.apply(variables, images, train, method="features", mutable=["batch_stats"])

    return run(variables)


def test_the_function_stays_and_training_computes_the_same(affine):
    config, variables = affine
    batch = small_batch(rows=2)
    names = norms_without_statistics(variables)
    assert ("backbone", "layer2_0", "downsample_bn") in names
    assert len(names) == sum(path[-1].key == "mean" for path, _ in leaves(variables["batch_stats"]))
    after = with_statistics(variables, [batch], config)
    assert norms_without_statistics(after) == []

    before, _ = features(config, variables, batch, train=False)
    frozen, _ = features(config, after, batch, train=False)
    live, updated = features(config, after, batch, train=True)
    for level, wanted in before.items():
        largest = np.abs(wanted).max()
        np.testing.assert_allclose(frozen[level], wanted, atol=1e-5 * largest, rtol=0)
        # Of the batch that the statistics are from.
        np.testing.assert_allclose(live[level], wanted, atol=1e-3 * largest, rtol=0)
    # Live batch norm, with momentum 1, keeps the mean of the batch.
    for (_, mean), (_, wanted) in zip(
        leaves(updated["batch_stats"]), leaves(after["batch_stats"]), strict=True
    ):
        np.testing.assert_allclose(mean, wanted, rtol=0.05, atol=1e-3)


def leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


def test_several_batches_count_alike(affine):
    config, variables = affine
    batches = [small_batch(rows=2, seed=seed) for seed in range(2)]
    found = with_statistics(variables, batches, config)["batch_stats"]["backbone"]["bn1"]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
    wanted = with_statistics(variables, [whole], config)["batch_stats"]["backbone"]["bn1"]
    np.testing.assert_allclose(found["mean"], wanted["mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["var"], wanted["var"], rtol=1e-4)


def test_a_run_with_folded_weights(affine, tmp_path):
    """Its first state has statistics; without a training set it names the flag to set."""
    config, variables = affine
    state = {}
    for collection in ("params", "batch_stats"):
        for path, leaf in leaves(variables[collection]["backbone"]):
            *module, name = (entry.key for entry in path)
            key = backbone_key((*module, name))
            if LEAF_NAMES[name] == "weight" and leaf.ndim == 4:
                leaf = np.transpose(leaf, (3, 2, 0, 1))
            state[key] = np.asarray(leaf)
    np.savez(tmp_path / "weights.npz", **state)
    model = dataclasses.replace(config.model, pretrained=str(tmp_path / "weights.npz"))
    config = dataclasses.replace(config, model=model)
    categories = Categories(tuple("abcde"), (1, 2, 3, 4, 5))
    functions = compile_functions(config, 5, make_mesh())
    with pytest.raises(WeightsError, match=r"--config\.model\.norm=frozen_batch"):
        first_state(functions, config, categories, print)
    lines = []
    state = first_state(functions, config, categories, lines.append, load_training_set(config.data))
    assert norms_without_statistics(state.variables()) == []
    assert "computed from images of the training set" in lines[-1]
