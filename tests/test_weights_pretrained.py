"""config.model.pretrained: what a checkpoint gives to a network that is about to be trained."""

import golden_models
import jax
import numpy as np
import pytest
from checkpoint_layouts import detectron2_pickle

from retinanet_jax.core.anchors import AnchorConfig
from retinanet_jax.core.retinanet import ModelConfig, build_model
from retinanet_jax.weights import WeightsError
from retinanet_jax.weights.pretrained import load_pretrained

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


def network(**fields):
    config = ModelConfig(**({"backbone": "resnet18", "extra_levels_from": "fpn"} | fields))
    return config, golden_models.random_variables(build_model(config, 3, 9))


@pytest.mark.parametrize(
    ("file", "fields"), [("torchvision.npz", {}), ("detectron2.pkl", {"stride_on": "1x1"})]
)
def test_detector_of_other_classes_gives_all_but_the_class_output(folder, file, fields):
    config, variables = network(**fields)
    imported = load_pretrained(str(folder / file), variables, config)
    assert imported.random == CLASS_OUTPUT
    before, after = (v["params"]["class_head"] for v in (variables, imported.variables))
    jax.tree.map(np.testing.assert_array_equal, before["output"], after["output"])
    assert not np.array_equal(before["conv0"]["kernel"], after["conv0"]["kernel"])


def test_backbone_gives_the_backbone(folder):
    config, variables = network()
    imported = load_pretrained(str(folder / "backbone.npz"), variables, config)
    assert {name.split("/")[0] for name in imported.random} == {"fpn", "class_head", "box_head"}
    assert all(name.startswith("backbone/") for name in imported.taken)


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        ("backbone.npz", {"backbone": "resnet50"}, "its backbone is a resnet18; write config"),
        ("detectron2.pkl", {}, "of detectron2, which has model.stride_on '1x1', not '3x3'"),
        ("torchvision.npz", {"relu_before_p7": False}, r"with_recipe\(config, 'torchvision_v1'\)"),
        ("nowhere.npz", {}, "does not exist"),
    ],
)
def test_another_network_is_refused(folder, file, fields, says):
    config, variables = network(**fields)
    with pytest.raises(WeightsError, match=says):
        load_pretrained(str(folder / file), variables, config)


def test_outputs_are_not_taken_for_anchors_in_another_order(folder):
    config, variables = network()
    with pytest.raises(WeightsError, match=r"anchors.order 'ratio_major', not 'scale_major'"):
        load_pretrained(str(folder / "torchvision.npz"), variables, config, AnchorConfig())
    imported = load_pretrained(
        str(folder / "torchvision.npz"), variables, config, AnchorConfig(order="ratio_major")
    )
    assert "box_head/output/kernel" in imported.taken


def test_folded_batch_norm_does_not_train(folder):
    """Its statistics have gone into the convolutions: live ones would undo them."""
    state = dict(np.load(folder / "backbone.npz"))
    folded = {key: value for key, value in state.items() if not key.startswith("bn1.")}
    folded["conv1.bias"] = np.zeros(64, np.float32)
    np.savez(folder / "folded.npz", **folded)
    config, variables = network(norm="batch", frozen_stages=0)
    with pytest.raises(WeightsError, match="folded into the convolutions"):
        load_pretrained(str(folder / "folded.npz"), variables, config)
    config, variables = network()
    assert (
        "backbone/bn1/var" in load_pretrained(str(folder / "folded.npz"), variables, config).taken
    )
