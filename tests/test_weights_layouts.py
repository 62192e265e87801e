"""Files of detectron2 and MMDetection: torchvision's golden weights in their layouts."""

import dataclasses

import checkpoint_layouts
import golden_models
import jax
import numpy as np
import pytest
from checkpoint_writers import dictionary, pickled, text, torch_zip, whole

from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.inference.detector import Detector
from retinanet_jax.weights import WeightsError, load_checkpoint
from retinanet_jax.weights.torchvision import keep_classes


@pytest.fixture(scope="module")
def state(golden_dir):
    return golden_models.state_dict(golden_dir, "retinanet_resnet50_fpn_v1")


@pytest.fixture(scope="module")
def small(golden_dir):
    return golden_models.state_dict(golden_dir, "retinanet_resnet18_fpn")


@pytest.fixture(scope="module")
def reference(state, tmp_path_factory):
    path = tmp_path_factory.mktemp("torchvision") / "model.npz"
    np.savez(path, **state)
    return load_checkpoint(path, raw_labels=True)


def write_detectron2(path, state):
    path.write_bytes(checkpoint_layouts.detectron2_pickle(state))
    return path


def write_mmdetection(path, state, classes=()):
    """As torch.save writes {'meta': ..., 'state_dict': ...}."""
    arrays = checkpoint_layouts.mmdetection_state(state)
    tensors = {key: whole(str(n), array) for n, (key, array) in enumerate(arrays.items())}
    names = b"(" + b"".join(map(text, classes)) + b"t"
    content = b"}(" + text("meta") + dictionary({"epoch": text("12"), "CLASSES": names})
    content += text("state_dict") + dictionary(tensors) + b"u"
    storages = {str(n): array.tobytes() for n, array in enumerate(arrays.values())}
    path.write_bytes(torch_zip(pickled(content), storages))
    return path


def to_torchvision_order(variables):
    """Scale-major outputs (H, W, I, (scale, ratio, value)) as ratio-major ones."""

    def permute(path, leaf):
        if path[-2].key != "output":
            return leaf
        split = leaf.reshape(*leaf.shape[:-1], 3, 3, -1)
        return split.swapaxes(-3, -2).reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(permute, variables)


@pytest.mark.slow
def test_detectron2_gives_the_golden_detections(golden_dir, state, reference, tmp_path):
    """All but the anchors' order is torchvision's here: the same network, the same detections.

    Where the recipes differ the weights mean something else; what differs is named in
    retinanet_jax/weights/detectron2.py.
    """
    golden = np.load(golden_dir / "v1.npz")
    loaded = load_checkpoint(write_detectron2(tmp_path / "model_final_5bd44e.pkl", state))
    assert loaded.recipe == "detectron2" and loaded.config.model.stride_on == "1x1"
    assert loaded.config.model.extra_levels_from == "fpn"
    left_out = {key.split(".")[0] for key in loaded.report.unused}
    assert left_out == {"pixel_mean", "pixel_std", "anchor_generator"}
    assert loaded.report.random == ()
    jax.tree.map(
        np.testing.assert_array_equal,
        to_torchvision_order(loaded.variables),
        reference.variables,
    )
    theirs = golden_models.with_golden_sides(reference.config, golden_dir, golden)
    anchors = dataclasses.replace(theirs.anchors, order=loaded.config.anchors.order)
    agreed = dataclasses.replace(theirs, anchors=anchors)
    images = golden_models.images(golden_dir)
    detector = Detector(loaded.variables, agreed, loaded.categories, batch_size=len(images))
    for image, found in enumerate(detector(images)):
        wanted = golden_models.stored(golden, f"eval/detections/{image}")
        cuts = golden_models.list_ends(golden, image)
        golden_models.assert_same_detections(golden_models.parts(found), wanted, cuts=cuts)


def test_mmdetection_gives_the_same_network(state, reference, tmp_path):
    """Its anchors lie in torchvision's order, so that not a bit of the variables differs."""
    loaded = load_checkpoint(write_mmdetection(tmp_path / "retinanet_r50_fpn.pth", state))
    assert loaded.recipe == "mmdetection" and loaded.report.random == ()
    assert all(key.endswith("num_batches_tracked") for key in loaded.report.unused)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, reference.variables)
    assert loaded.config.anchors.order == reference.config.anchors.order
    different = {
        field.name
        for field in dataclasses.fields(loaded.config.model)
        if getattr(loaded.config.model, field.name) != getattr(reference.config.model, field.name)
    }
    assert different == {"pretrained", "relu_before_p7"}


def test_the_file_name_gives_mmdetections_style(small, tmp_path):
    """The keys and shapes of its caffe style are the same."""
    cut = keep_classes(small, COCO_CATEGORIES.ids)
    for name, recipe, stride_on, order in (
        ("retinanet_r18_fpn_1x_coco.pth", "mmdetection", "3x3", "rgb"),
        ("retinanet_r18_caffe_fpn_1x_coco.pth", "mmdetection_caffe", "1x1", "bgr"),
    ):
        loaded = load_checkpoint(write_mmdetection(tmp_path / name, cut, COCO_CATEGORIES.names))
        assert loaded.recipe == recipe and loaded.categories == COCO_CATEGORIES
        assert (loaded.config.model.stride_on, loaded.config.pixels.order) == (stride_on, order)


@pytest.mark.parametrize("layout", ["detectron2", "mmdetection"])
def test_every_array_is_used_or_named(layout, small, tmp_path):
    changed = dict(small)
    del changed["backbone.fpn.inner_blocks.1.0.bias"]
    changed["backbone.body.layer3.1.conv2.weight"] = np.zeros((1, 2, 3, 3), np.float32)
    changed["backbone.body.layer1.0.se.weight"] = np.zeros(4, np.float32)
    write = write_detectron2 if layout == "detectron2" else write_mmdetection
    path = write(tmp_path / "model", changed)
    names = {
        "detectron2": (
            "missing: backbone.fpn_lateral4.bias for fpn/lateral4/bias",
            "misshapen: backbone.bottom_up.res4.1.conv2.weight (3, 3, 2, 1)",
            "unknown: backbone.bottom_up.res2.0.se.weight",
        ),
        "mmdetection": (
            "missing: neck.lateral_convs.1.conv.bias for fpn/lateral4/bias",
            "misshapen: backbone.layer3.1.conv2.weight (3, 3, 2, 1)",
            "unknown: backbone.layer1.0.se.weight",
        ),
    }[layout]
    with pytest.raises(WeightsError) as error:
        load_checkpoint(path)
    for name in (str(path), *names):
        assert name in str(error.value)


def test_the_model_zoo_has_the_classes_of_coco(small, tmp_path):
    """80 of the 91 channels: contiguous labels."""
    cut = keep_classes(small, COCO_CATEGORIES.ids)
    loaded = load_checkpoint(write_detectron2(tmp_path / "model.pkl", cut))
    assert loaded.categories == COCO_CATEGORIES
    assert loaded.variables["params"]["class_head"]["output"]["bias"].shape == (720,)
    own = tuple(f"part {n}" for n in range(80))
    mine = load_checkpoint(write_mmdetection(tmp_path / "mine.pth", cut, own))
    assert mine.categories.names == own
    with pytest.raises(WeightsError, match=r"'torchvision_v2' does not fit its keys.*detectron2"):
        load_checkpoint(tmp_path / "model.pkl", "torchvision_v2")
