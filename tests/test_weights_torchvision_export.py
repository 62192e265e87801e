"""Weights go out to torchvision's layout and come back without a changed bit."""

import dataclasses

import golden_models
import jax
import numpy as np
import pytest
from small import small_config

from retinanet_jax.core.retinanet import build_model
from retinanet_jax.weights import WeightsError, export_torchvision, load_checkpoint


@pytest.mark.parametrize("name", ["retinanet_resnet50_fpn_v1", "retinanet_resnet50_fpn_v2"])
def test_out_and_back_without_a_changed_bit(golden_dir, tmp_path, name):
    state = golden_models.state_dict(golden_dir, name)
    np.savez(tmp_path / "in.npz", **state)
    loaded = load_checkpoint(tmp_path / "in.npz", raw_labels=True)
    path = tmp_path / "out.safetensors"
    written = export_torchvision(loaded.variables, loaded.config, path)
    weights = {key for key in state if not key.endswith("num_batches_tracked")}
    assert set(written) == weights
    library = pytest.importorskip("safetensors.numpy")
    read = library.load_file(path)
    assert set(read) == weights
    for key in weights:
        assert read[key].dtype == np.float32 and read[key].shape == state[key].shape
        assert read[key].tobytes() == state[key].tobytes(), key
    again = load_checkpoint(path, raw_labels=True)
    jax.tree.map(np.testing.assert_array_equal, again.variables, loaded.variables)


def small_network(**fields):
    config = small_config(model__backbone_levels=(3, 4, 5), model__max_level=7, **fields)
    model = build_model(config.model, 3, config.anchors.anchors_per_location)
    return config, golden_models.random_variables(model)


def test_scale_major_anchors_go_out_ratio_major(tmp_path):
    """Channel (ratio, scale, value) of the file is (scale, ratio, value) of ours."""
    config, variables = small_network()
    assert config.anchors.order == "scale_major"
    state = export_torchvision(variables, config, tmp_path / "out.safetensors")
    for head, output, values in (
        ("class_head", "head.classification_head.cls_logits", 3),
        ("box_head", "head.regression_head.bbox_reg", 4),
    ):
        ours = np.asarray(variables["params"][head]["output"]["bias"]).reshape(3, 3, values)
        theirs = state[f"{output}.bias"].reshape(3, 3, values)
        for scale, ratio in np.ndindex(3, 3):
            np.testing.assert_array_equal(theirs[ratio, scale], ours[scale, ratio])
        kernel = np.asarray(variables["params"][head]["output"]["kernel"])
        kernel = kernel.reshape(3, 3, 16, 3, 3, values)
        weight = state[f"{output}.weight"].reshape(3, 3, values, 16, 3, 3)
        np.testing.assert_array_equal(weight, kernel.transpose(4, 3, 5, 2, 0, 1))


@pytest.mark.parametrize(
    ("field", "value"), [("stride_on", "1x1"), ("relu_before_p7", False), ("norm", "group")]
)
def test_networks_that_torchvision_has_not_are_refused(tmp_path, field, value):
    config = small_config()
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, **{field: value}))
    with pytest.raises(WeightsError, match=rf"config\.model\.{field}: {value!r}"):
        export_torchvision({}, config, tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())
