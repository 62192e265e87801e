"""load_checkpoint: project, network, recipe and class names of a file; what it refuses."""

import dataclasses
import http.server
import re

import golden_models
import jax
import numpy as np
import pytest
from local_server import serving

from retinanet_jax.core.resnet import ARCHITECTURES
from retinanet_jax.data.annotations.class_names import COCO_CATEGORIES
from retinanet_jax.inference.detector import Detector
from retinanet_jax.runtime.download import file_sha256
from retinanet_jax.weights import PUBLIC_WEIGHTS, WeightsError, load_checkpoint
from retinanet_jax.weights.network import read_backbone
from retinanet_jax.weights.projects import BACKBONE

SMALL = "retinanet_resnet18_fpn"


@pytest.fixture(scope="module")
def small(golden_dir):
    """torchvision's RetinaNet on a ResNet-18, 91 classes."""
    return golden_models.state_dict(golden_dir, SMALL)


def saved(folder, state, name="model.npz"):
    np.savez(folder / name, **state)
    return folder / name


def model_fields(loaded, *names):
    return tuple(getattr(loaded.config.model, name) for name in names)


@pytest.mark.parametrize(
    ("name", "recipe", "fields"),
    [
        (SMALL, "torchvision_v1", ("resnet18", "fpn", "none", "frozen_batch", 2)),
        (
            "retinanet_resnext50_32x4d_fpn",
            "torchvision_v1",
            ("resnext50_32x4d", "fpn", "none", "frozen_batch", 2),
        ),
        (
            "retinanet_resnet50_fpn_v1bn",
            "torchvision_v1",
            ("resnet50", "fpn", "none", "batch", 0),
        ),
        (
            "retinanet_resnet50_fpn_v2",
            "torchvision_v2",
            ("resnet50", "backbone", "group", "batch", 0),
        ),
    ],
)
def test_the_arrays_give_network_and_recipe(golden_dir, tmp_path, name, recipe, fields):
    path = saved(tmp_path, golden_models.state_dict(golden_dir, name))
    loaded = load_checkpoint(path, class_names="coco")
    assert loaded.recipe == recipe and loaded.categories == COCO_CATEGORIES
    names = ("backbone", "extra_levels_from", "head_norm", "norm", "frozen_stages")
    assert model_fields(loaded, *names) == fields
    counters, cut = loaded.report.unused[:-1], loaded.report.unused[-1]
    assert all(key.endswith("num_batches_tracked") for key in counters)
    assert cut.startswith("classes 0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83 of head.class")
    assert loaded.report.random == () and loaded.config.model.norm_epsilon == 1e-5
    assert loaded.config.model.precision == "highest"


def test_the_published_coco_weights_of_v1_have_epsilon_zero(small, tmp_path, monkeypatch):
    """By the file's hash or the argument; a file that has their name is another one."""
    path = saved(tmp_path, small, "retinanet_resnet50_fpn_coco-eeacb38b.npz")
    loaded = load_checkpoint(path)
    assert loaded.config.model.norm_epsilon == 1e-5 and loaded.recipe == "torchvision_v1"
    assert loaded.categories.names[:2] == ("class 0", "class 1")
    given = load_checkpoint(path, "torchvision_v1_coco")
    assert given.config.model.norm_epsilon == 0 and given.recipe == "torchvision_v1_coco"
    name = "torchvision/retinanet_resnet50_fpn"
    published = PUBLIC_WEIGHTS[name]._replace(sha256=file_sha256(path)[:8])
    monkeypatch.setitem(PUBLIC_WEIGHTS, name, published)
    by_hash = load_checkpoint(path.rename(tmp_path / "mine.npz"))
    assert by_hash.config.model.norm_epsilon == 0 and by_hash.categories == COCO_CATEGORIES


def test_class_names_are_given_or_numbers(small, tmp_path):
    """91 channels may be anyone's classes."""
    path = saved(tmp_path, small)
    loaded = load_checkpoint(path)
    assert loaded.categories.names == tuple(f"class {n}" for n in range(91))
    assert "--class_names" in loaded.report.summary() and "'coco'" in loaded.report.summary()
    names = [f"part {n}" for n in range(91)]
    named = load_checkpoint(path, class_names=names)
    assert named.categories.names == tuple(names)
    assert "--class_names" not in named.report.summary()
    assert Detector.from_pretrained(path, class_names="coco").categories == COCO_CATEGORIES
    with pytest.raises(WeightsError, match="class_names: 2 names for the 91 classes"):
        load_checkpoint(path, class_names=["cat", "dog"])


def test_raw_labels_keep_all_channels(small, tmp_path):
    loaded = load_checkpoint(saved(tmp_path, small), raw_labels=True)
    assert loaded.categories.ids == tuple(range(91)) and loaded.report.unused == ()
    names = loaded.categories.names
    assert (names[0], names[1], names[12], names[90]) == (
        "background",
        "person",
        "unused 12",
        "toothbrush",
    )


@pytest.mark.extended
def test_coco_labels_are_the_same_detections(golden_dir, small, tmp_path):
    """Of a trained network, in which the channels without a category are always low."""
    trained = dict(small)
    bias = trained["head.classification_head.cls_logits.bias"].reshape(9, 91).copy()
    bias[:, sorted(set(range(91)) - set(COCO_CATEGORIES.ids))] = -30
    trained["head.classification_head.cls_logits.bias"] = bias.reshape(-1)
    path, image = saved(tmp_path, trained), golden_models.images(golden_dir)[0]
    found = {}
    for raw in (False, True):
        loaded = load_checkpoint(path, raw_labels=raw, class_names="coco")
        pipeline = dataclasses.replace(loaded.config.pipeline, min_side=96, max_side=160)
        config = dataclasses.replace(loaded.config, pipeline=pipeline)
        found[raw] = Detector(loaded.variables, config, loaded.categories)(image)
    ids = np.array(COCO_CATEGORIES.ids)[found[False].labels]
    assert len(ids) > 10
    golden_models.assert_same_detections(
        (found[False].boxes, found[False].scores, ids),
        golden_models.parts(found[True]),
        box_atol=1e-4,
        score_atol=1e-6,
    )


def test_the_older_keys_of_v1_are_read(small, tmp_path):
    """Before torchvision 0.13: towers counted with their ReLUs, pyramid without `.0`."""
    older = {}
    for key, value in small.items():
        tower = re.sub(
            r"(_head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}.", key
        )
        older[re.sub(r"((?:inner|layer)_blocks\.\d)\.0\.", r"\1.", tower)] = value
    assert "head.classification_head.conv.6.bias" in older
    assert "backbone.fpn.inner_blocks.2.bias" in older
    loaded = [load_checkpoint(saved(tmp_path, state)) for state in (small, older)]
    jax.tree.map(np.testing.assert_array_equal, *(part.variables for part in loaded))


def test_detector_of_other_classes_gets_numbers_for_names(small, tmp_path):
    state = dict(small)
    for leaf in ("weight", "bias"):
        key = f"head.classification_head.cls_logits.{leaf}"
        state[key] = state[key][: 9 * 4]
    loaded = load_checkpoint(saved(tmp_path, state))
    assert loaded.categories.names == ("class 0", "class 1", "class 2", "class 3")


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_shapes_give_the_backbone(golden_dir, name):
    torchvision_has = name != "resnext101_32x4d"
    shapes = golden_models.shapes(golden_dir, name if torchvision_has else "resnext101_64x4d")
    empty = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    if not torchvision_has:  # half of the groups of 4 channels
        empty["layer1.0.conv2.weight"] = np.zeros((128, 4, 3, 3), np.float32)
    assert read_backbone(empty, BACKBONE.key_of) == name


def test_a_backbone_without_classifier_and_counters(golden_dir, tmp_path):
    """timm's safetensors of a network without classifier: no counters, no fc."""
    state = golden_models.state_dict(golden_dir, "resnet18")
    whole = load_checkpoint(saved(tmp_path, state))
    assert set(whole.report.unused) == {
        key for key in state if key.startswith("fc.") or key.endswith("num_batches_tracked")
    }
    timm = {key: state[key] for key in state if key not in whole.report.unused}
    loaded = load_checkpoint(saved(tmp_path, timm))
    assert (loaded.recipe, loaded.categories) == ("backbone", None)
    assert loaded.config.model.backbone == "resnet18" and loaded.report.unused == ()
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, whole.variables)
    with pytest.raises(WeightsError, match="backbone without heads"):
        Detector.from_checkpoint(tmp_path / "model.npz")


def test_a_detector_of_a_file_is_that_of_its_url(small, tmp_path, monkeypatch):
    class Folder(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = saved(tmp_path, small)
    with serving(Folder) as server:
        url = f"http://127.0.0.1:{server.server_port}/{path.name}"
        downloaded = Detector.from_checkpoint(url)
        with pytest.raises(WeightsError, match=r"none\.npz: the server answered 404"):
            Detector.from_checkpoint(url.replace(path.name, "none.npz"))
    read = Detector.from_checkpoint(path)
    assert downloaded.categories == read.categories
    jax.tree.map(np.testing.assert_array_equal, downloaded.variables, read.variables)


def test_resnet_d_is_refused_by_name(golden_dir, tmp_path):
    state = golden_models.state_dict(golden_dir, "resnet50")
    stem = state.pop("conv1.weight")
    state |= {f"conv1.{n}.weight": stem[:, :, :3, :3] for n in (0, 3, 6)}
    with pytest.raises(WeightsError, match=r"conv1\.0\.weight: its backbone is a ResNet-D.*timm"):
        load_checkpoint(saved(tmp_path, state))


def test_other_networks_are_refused(small, tmp_path):
    key = "head.classification_head.cls_logits.bias"
    deltas = "head.regression_head.bbox_reg.bias"
    wide = {
        f"layer{stage}.{n}.{conv}.weight": np.zeros(shape, np.float32)
        for stage, n, conv, shape in (
            (1, 0, "conv1", (64, 64, 1, 1)),
            (1, 0, "conv2", (96, 96, 3, 3)),
            (1, 0, "conv3", (256, 64, 1, 1)),
        )
    }
    lacking = {k: v for k, v in small.items() if k != key}
    for state, complaint in (
        ({"encoder.weight": np.zeros(3)}, "do not belong to a known project: torchvision"),
        (wide, "bottlenecks, 1 groups of 96; supported are resnet18"),
        (lacking, f"missing: {key}"),
        (small | {key: np.zeros((), np.float32)}, f"{key}: has shape"),
        (small | {key: np.zeros(820, np.float32)}, "not a RetinaNet"),
        (
            small | {deltas: np.zeros(12, np.float32)},
            "3 anchors per location instead of the 9 of torchvision_v1",
        ),
    ):
        path = saved(tmp_path, state)
        with pytest.raises(WeightsError, match=complaint) as error:
            load_checkpoint(path, raw_labels=True)
        assert str(path) in str(error.value)
    readers = (load_checkpoint, "does not exist"), (Detector.from_checkpoint, "no such workdir or")
    for read, complaint in readers:
        with pytest.raises(WeightsError, match=complaint):
            read(tmp_path / "nowhere.pth")
    assert not (tmp_path / "nowhere.pth").exists()
