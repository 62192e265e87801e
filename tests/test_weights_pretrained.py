"""config.model.pretrained: what a new run takes from a checkpoint."""

import pickle
import re

import golden_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_layouts import detectron2_pickle

from retinanet_jax.config.settings import default_config, from_config_dict, to_json
from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.core.retinanet import build_model
from retinanet_jax.data.records import Categories
from retinanet_jax.runtime.checkpoints import Checkpoints
from retinanet_jax.training.norm_statistics import norms_without_statistics
from retinanet_jax.training.train_state import TrainState
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.conventions import reordered
from retinanet_jax.weights.pretrained import load_pretrained

THREE = Categories(("a", "b", "c"), (0, 1, 2))
CLASS_OUTPUT = ("class_head/output/bias", "class_head/output/kernel")


@pytest.fixture(scope="module")
def folder(golden_dir, tmp_path_factory):
    """A backbone and a RetinaNet on a ResNet-18, the latter in two layouts."""
    folder = tmp_path_factory.mktemp("public")
    np.savez(folder / "backbone.npz", **golden_models.state_dict(golden_dir, "resnet18"))
    state = golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn")
    np.savez(folder / "torchvision.npz", **state)
    (folder / "detectron2.pkl").write_bytes(detectron2_pickle(state))
    return folder


def run_of(**fields):
    """A run's config and its random network of three classes."""
    tree = default_config()
    defaults = {"model__pretrained": "given", "model__norm": "frozen_batch"}
    tree.update_from_flattened_dict(
        {key.replace("__", "."): value for key, value in (defaults | fields).items()}
    )
    config = from_config_dict(tree)
    model = build_model(config.model, 3, config.anchors.anchors_per_location)
    return config, golden_models.random_variables(model)


def network(**fields):
    return run_of(**({"model__backbone": "resnet18", "model__extra_levels_from": "fpn"} | fields))


BGR = {
    "model__stride_on": "1x1",
    "pixels__order": "bgr",
    "pixels__mean": (103.53, 116.28, 123.675),
    "pixels__std": (1.0, 1.0, 1.0),
    "pixels__scale": 1.0,
}


@pytest.mark.parametrize(("file", "fields"), [("torchvision.npz", {}), ("detectron2.pkl", BGR)])
def test_a_detector_of_other_classes_gives_all_but_the_class_output(folder, file, fields):
    config, variables = network(**fields)
    imported = load_pretrained(str(folder / file), variables, config, THREE)
    assert imported.random == CLASS_OUTPUT
    before, after = (v["params"]["class_head"] for v in (variables, imported.variables))
    jax.tree.map(np.testing.assert_array_equal, before["output"], after["output"])
    assert not np.array_equal(before["conv0"]["kernel"], after["conv0"]["kernel"])


def test_a_backbone_gives_the_backbone(folder):
    config, variables = network()
    imported = load_pretrained(str(folder / "backbone.npz"), variables, config)
    assert {name.split("/")[0] for name in imported.random} == {"fpn", "class_head", "box_head"}
    assert all(name.startswith("backbone/") for name in imported.taken)


@pytest.mark.parametrize(
    ("file", "fields", "flags"),
    [
        ("backbone.npz", {"model__backbone": "resnet50"}, "--config.model.backbone=resnet18"),
        (
            "detectron2.pkl",
            {},
            "--config.model.stride_on=1x1 --config.pixels.order=bgr "
            "--config.pixels.mean='(103.53,116.28,123.675)' --config.pixels.std='(1.0,1.0,1.0)' "
            "--config.pixels.scale=1.0",
        ),
        ("torchvision.npz", {"model__relu_before_p7": False}, "--config.model.relu_before_p7=True"),
        ("nowhere.npz", {}, "--weights=none"),
    ],
)
def test_another_network_is_refused_with_the_flags_to_write(folder, file, fields, flags):
    config, variables = network(**fields)
    with pytest.raises(WeightsError) as error:
        load_pretrained(str(folder / file), variables, config)
    assert flags in str(error.value)


def test_the_order_of_anchors_is_adapted(folder):
    """torchvision's outputs, ratio-major, for a run whose anchors are scale-major."""
    config, variables = network()
    assert config.anchors.order == "scale_major"
    path = str(folder / "torchvision.npz")
    imported = load_pretrained(path, variables, config, THREE)
    assert "outputs reordered from ratio_major to scale_major" in imported.summary()
    same, variables = network(anchors__order="ratio_major")
    plain = load_pretrained(path, variables, same, THREE)
    found, wanted = (i.variables["params"]["box_head"]["output"]["bias"] for i in (imported, plain))
    for scale, ratio in np.ndindex(3, 3):
        np.testing.assert_array_equal(
            found.reshape(3, 3, 4)[scale, ratio], wanted.reshape(3, 3, 4)[ratio, scale]
        )
    assert "anchors.rounding torchvision, here none" in plain.summary()


def test_folded_batch_norm(folder):
    state = dict(np.load(folder / "backbone.npz"))
    folded = {key: value for key, value in state.items() if not key.startswith("bn1.")}
    folded["conv1.bias"] = np.ones(64, np.float32)
    np.savez(folder / "folded.npz", **folded)
    config, variables = network()
    imported = load_pretrained(str(folder / "folded.npz"), variables, config)
    assert "backbone/bn1/var" in imported.taken
    assert norms_without_statistics(imported.variables) == [("backbone", "bn1")]
    complete = load_pretrained(str(folder / "backbone.npz"), variables, config)
    assert norms_without_statistics(complete.variables) == []


def test_the_caffe2_backbone_of_detectron2(golden_dir, tmp_path):
    """MSRA's blobs: affine batch norm, whose epsilon cancels."""
    state = golden_models.state_dict(golden_dir, "resnet50")
    blobs = {"fc1000_w": np.zeros((1000, 2048), np.float32)}
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var", "tracked")) or key.startswith("fc."):
            continue
        norm = "bn" in key or "downsample.1" in key
        name = key.replace("downsample.0", "branch1").replace("downsample.1", "branch1")
        for number, letter in enumerate("abc", 1):
            name = name.replace(f".conv{number}.", f".branch2{letter}.")
            name = name.replace(f".bn{number}.", f".branch2{letter}.")
        name = re.sub(r"layer(\d)\.(\d+)\.", lambda m: f"res{int(m[1]) + 1}_{m[2]}_", name)
        name = name.replace("bn1.", "res_conv1.")
        leaf = ("s" if norm else "w") if key.endswith("weight") else "b"
        blobs[name.rsplit(".", 1)[0] + ("_bn_" if norm else "_") + leaf] = value
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_w", "res5_2_branch2c_bn_b"} <= set(blobs)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(blobs))
    config, variables = run_of(**BGR)
    imported = load_pretrained(str(path), variables, config)
    assert all(not name.startswith("backbone/") for name in imported.random)
    assert imported.unused == ()
    block = imported.variables["params"]["backbone"]["layer2_1"]
    expected = state["layer2.1.conv3.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(block["conv3"]["kernel"], expected)
    statistics = imported.variables["batch_stats"]["backbone"]["layer2_1"]["bn3"]
    np.testing.assert_array_equal(statistics["mean"], 0)
    np.testing.assert_allclose(statistics["var"] + config.model.norm_epsilon, 1, rtol=1e-6)


# Runs of ours.


@pytest.fixture
def finished_run(tmp_path):
    """The workdir of a run with three classes."""
    config, variables = network()
    state = TrainState(jnp.int32(5), **variables, opt_state=None, average=None)
    metadata = {"config": to_json(config), "names": list(THREE.names), "ids": [0, 1, 2]}
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        checkpoints.save(5, state, metadata)
    return tmp_path / "run", variables


def test_a_run_of_ours_gives_all_of_it(finished_run):
    workdir, trained = finished_run
    config, _ = network()
    model = build_model(config.model, 3, config.anchors.anchors_per_location)
    fresh = golden_models.random_variables(model, seed=1)
    imported = load_pretrained(str(workdir), fresh, config, THREE)
    assert imported.random == () and imported.unused == ()
    jax.tree.map(np.testing.assert_array_equal, imported.variables, trained)
    # As many classes of other names: new heads.
    others = Categories(("x", "y", "z"), (0, 1, 2))
    imported = load_pretrained(str(workdir), fresh, config, others)
    assert imported.random == CLASS_OUTPUT and "class output: starts anew" in imported.summary()


def test_a_run_of_another_network_is_refused(finished_run):
    workdir, _ = finished_run
    for fields, flag in (
        ({"model__backbone": "resnet34"}, "--config.model.backbone=resnet18"),
        (BGR, "--config.model.stride_on=3x3"),
    ):
        config, variables = network(**fields)
        with pytest.raises(WeightsError, match=flag):
            load_pretrained(str(workdir), variables, config, THREE)


@pytest.mark.parametrize("axis", [0, -1])
def test_outputs_are_reordered_with_unequal_numbers_of_scales_and_ratios(axis):
    """Each channel holds 100 * scale + 10 * ratio + value."""
    anchors = AnchorConfig(scales=(1.0, 1.5), ratios=(0.5, 1.0, 2.0))
    scales, ratios, values = np.meshgrid(range(2), range(3), range(4), indexing="ij")
    numbers = 100 * scales + 10 * ratios + values
    scale_major, ratio_major = numbers.reshape(-1), numbers.swapaxes(0, 1).reshape(-1)
    kernel = np.ones((24, 5), int) if axis == 0 else np.ones((5, 24), int)
    place = np.s_[:, None] if axis == 0 else np.s_[:]
    for order, given, wanted in (
        ("scale_major", scale_major, ratio_major),
        ("ratio_major", ratio_major, scale_major),
    ):
        found = reordered(kernel * given[place], axis, order, anchors)
        np.testing.assert_array_equal(found, kernel * wanted[place])
