"""State dicts as people have them: prefixes, copies of the weights, other networks beside them."""

import pickle

import golden_models
import jax
import numpy as np
import pytest

from retinanet_jax.weights import WeightsError, load_checkpoint
from retinanet_jax.weights.projects import recognise
from retinanet_jax.weights.torchvision import unfold


def arrays(*keys, value=1.0):
    return {key: np.full(2, value, np.float32) for key in keys}


DETECTOR = arrays("backbone.body.conv1.weight", "head.regression_head.bbox_reg.bias")
BACKBONE = arrays("conv1.weight", "layer1.0.conv1.weight", "fc.weight")


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "model._orig_mod.", "net.detector.module."]
)
@pytest.mark.parametrize(
    ("state", "name"), [(DETECTOR, "torchvision"), (BACKBONE, "backbone")], ids=["detector", "net"]
)
def test_prefixes_are_removed(prefix, state, name):
    source, found, _ = recognise(prefixed(state, prefix))
    assert source.name == name and list(found) == list(state)


def test_wrappers_inside_of_keys_are_removed():
    """Of submodules that were compiled or run by DataParallel."""
    state = {"backbone._orig_mod.body.conv1.weight": np.ones(2), "head.module.x.bias": np.ones(2)}
    _, found, _ = recognise(state)
    assert list(found) == ["backbone.body.conv1.weight", "head.x.bias"]


@pytest.mark.parametrize(
    ("prefix", "copy"),
    [("", "model_ema.module."), ("model.", "ema_model."), ("student.", "teacher.")],
)
def test_a_moving_average_is_left_out_or_taken_and_noted_in_a_line(prefix, copy):
    average = {key: value + 1 for key, value in DETECTOR.items()}
    state = prefixed(DETECTOR, prefix) | prefixed(average, copy) | arrays("criterion.weight")
    for taken, wanted, word in ((False, DETECTOR, "left out: the"), (True, average, "loaded: the")):
        _, found, notes = recognise(state, average=taken)
        extra = {"criterion.weight"} if prefix == "" and not taken else set()
        assert set(found) == set(DETECTOR) | extra
        assert all(np.array_equal(found[key], value) for key, value in wanted.items())
        assert sum(word in note for note in notes) == 1 and len("\n".join(notes)) < 400


def test_the_averages_of_mmcv():
    state = arrays("backbone.layer1.0.conv1.weight", "bbox_head.retina_cls.bias")
    average = {f"ema_{key.replace('.', '_')}": value + 1 for key, value in state.items()}
    for taken, change in ((False, 0), (True, 1)):
        source, found, notes = recognise(state | average, average=taken)
        assert source.name == "mmdetection" and list(found) == list(state)
        assert all(np.array_equal(found[key], value + change) for key, value in state.items())
        assert len(notes) == 1 and "2 arrays under ema_" in notes[0]


def test_no_average_and_two_networks_are_errors():
    with pytest.raises(WeightsError, match="no moving average of the weights; leave --ema out"):
        recognise(DETECTOR, average=True)
    with pytest.raises(WeightsError, match=r"holds 2 networks, under first\., second\."):
        recognise(prefixed(DETECTOR, "first.") | prefixed(DETECTOR, "second."))
    with pytest.raises(WeightsError, match="do not belong to a known project"):
        recognise(arrays("encoder.weight"))


def test_what_else_is_in_the_file_is_counted():
    state = prefixed(DETECTOR, "model.") | arrays("loss.a", "loss.b", "scale")
    assert recognise(state)[2] == [
        "prefix of its keys: model.",
        "left out: 2 under loss, 1 under scale",
    ]


def test_a_lightning_checkpoint_is_the_same_detector(golden_dir, tmp_path):
    state = golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn")
    np.savez(tmp_path / "plain.npz", **state)
    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5",
        "state_dict": prefixed(state, "model._orig_mod."),
        "optimizer_states": [{"state": {0: {"exp_avg": np.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": None}},
    }
    (tmp_path / "lightning.ckpt").write_bytes(pickle.dumps(checkpoint))
    plain, found = (load_checkpoint(tmp_path / name) for name in ("plain.npz", "lightning.ckpt"))
    jax.tree.map(np.testing.assert_array_equal, found.variables, plain.variables)
    assert "prefix of its keys: model." in found.report.summary()


def test_a_folded_norm_is_the_same_function():
    rng, bias = np.random.default_rng(0), np.array([0.5, -2.0], np.float32)
    state = {"layer1.0.conv1.weight": np.ones((2, 3, 1, 1)), "layer1.0.conv1.bias": bias}
    found = unfold(state, 1e-3)
    norm = {leaf: found.pop(f"layer1.0.bn1.{leaf}") for leaf in ("weight", "bias")}
    mean, var = (found.pop(f"layer1.0.bn1.running_{leaf}") for leaf in ("mean", "var"))
    assert list(found) == ["layer1.0.conv1.weight"]
    x = rng.normal(size=(5, 2))
    normalized = (x - mean) / np.sqrt(var + 1e-3) * norm["weight"] + norm["bias"]
    np.testing.assert_allclose(normalized, x + bias, rtol=1e-6)
