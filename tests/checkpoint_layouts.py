"""torchvision's detectors as other projects would write the same weights.

An independent second version of the key maps: it uses none of the package's.
"""

import pickle
import re

import numpy as np

HEADS = {"classification": "cls", "regression": "bbox"}


def detectron2_pickle(state, *, scales=3, ratios=3):
    """The bytes of a model zoo file: anchors scale-major, constants among weights."""
    model = {
        "pixel_mean": np.array([103.53, 116.28, 123.675], np.float32).reshape(3, 1, 1),
        "pixel_std": np.ones((3, 1, 1), np.float32),
    }
    for level in range(5):
        model[f"anchor_generator.cell_anchors.{level}"] = np.zeros((9, 4), np.float32)
    for key, value in state.items():
        if "cls_logits" in key or "bbox_reg" in key:
            value = scale_major(value, scales, ratios)
        if not key.endswith("num_batches_tracked"):
            model[detectron2_name(key)] = np.ascontiguousarray(value)
    return pickle.dumps({"model": model, "__author__": "Detectron2 Model Zoo"}, protocol=2)


def scale_major(value, scales, ratios):
    """Output channels (ratio, scale, value) as (scale, ratio, value)."""
    split = value.reshape(ratios, scales, -1, *value.shape[1:])
    return split.swapaxes(0, 1).reshape(value.shape)


def detectron2_name(key):
    head = re.fullmatch(r"head\.(\w+)_head\.(.*)\.(weight|bias)", key)
    if head:
        subnet = {"cls_logits": "cls_score", "bbox_reg": "bbox_pred"}.get(head[2])
        if subnet is None:
            subnet = f"{HEADS[head[1]]}_subnet.{2 * int(head[2].split('.')[1])}"
        return f"head.{subnet}.{head[3]}"
    for pattern, name in (
        (r"backbone\.fpn\.inner_blocks\.(\d)\.0\.(.*)", r"backbone.fpn_lateral\1.\2"),
        (r"backbone\.fpn\.layer_blocks\.(\d)\.0\.(.*)", r"backbone.fpn_output\1.\2"),
    ):
        if found := re.fullmatch(pattern, key):
            return re.sub(r"\d", str(int(found[1]) + 3), found.expand(name), count=1)
    key = key.replace("backbone.fpn.extra_blocks.", "backbone.top_block.")
    key = re.sub(r"body\.layer(\d)", lambda found: f"bottom_up.res{int(found[1]) + 1}", key)
    key = re.sub(r"body\.(conv1|bn1)", r"bottom_up.stem.\1", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    return key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def mmdetection_name(key):
    key = key.replace("backbone.body.", "backbone.").replace("head.classification_head.", "")
    key = key.replace("head.regression_head.conv", "reg_convs").replace("head.regression_head.", "")
    key = re.sub(r"^conv\.(\d)\.0\.", r"bbox_head.cls_convs.\1.conv.", key)
    key = re.sub(r"^reg_convs\.(\d)\.0\.", r"bbox_head.reg_convs.\1.conv.", key)
    key = key.replace("cls_logits", "bbox_head.retina_cls").replace(
        "bbox_reg", "bbox_head.retina_reg"
    )
    key = re.sub(r"^backbone\.fpn\.inner_blocks\.(\d)\.0", r"neck.lateral_convs.\1.conv", key)
    key = re.sub(r"^backbone\.fpn\.layer_blocks\.(\d)\.0", r"neck.fpn_convs.\1.conv", key)
    key = key.replace("backbone.fpn.extra_blocks.p6", "neck.fpn_convs.3.conv")
    return key.replace("backbone.fpn.extra_blocks.p7", "neck.fpn_convs.4.conv")


def mmdetection_state(state):
    """The state dict: torchvision's anchor order, counters of batch norm beside the weights."""
    renamed = {mmdetection_name(key): np.asarray(value) for key, value in state.items()}
    counters = [key for key in renamed if key.endswith("running_var")]
    return renamed | {
        key.replace("running_var", "num_batches_tracked"): np.array(7330) for key in counters
    }
